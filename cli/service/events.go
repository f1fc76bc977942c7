package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/event"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/hubamqp"
	"github.com/iotdm/iotdm/internal/eventdoc"
	"github.com/iotdm/iotdm/internal/jsontext"
)

type eventsOptions struct {
	target.Messaging
	device, module, model string
	from                  string
	group                 string
	properties            command.Texts
	contentType           string
	count, last           int
	follow                bool
	idle                  command.Seconds

	query        hubamqp.EventQuery // of the above
	sys, app, an bool               // which properties to print
}

func eventsCommand(s output.Streams) *urfave.Command {
	o := eventsOptions{idle: command.Seconds(5 * time.Minute)}
	return command.Leaf(&urfave.Command{
		Name:  "events",
		Usage: "print what devices send, from Azure IoT Hub too",
		Description: "Reads the hub's endpoint for events over AMQP: what comes from now on, until\n" +
			"Ctrl-C, or until nothing has come for --timeout. With --from or --last it begins\n" +
			"earlier. With --follow=false it ends at the newest event, and begins with the\n" +
			"oldest. Takes the connection string of an IoT hub, or of its\n" +
			"Event-Hub-compatible endpoint. With --output json each event is a line in the\n" +
			"shape of \"az iot hub monitor-events\". For example:\n" +
			"   iotdm service events --last 10\n" +
			"   iotdm service events --device device-1 --properties all\n" +
			"   iotdm service events --from 1h --follow=false --jq .event.payload\n" +
			"   iotdm service events --device 'pump-*' --consumer-group tests --timeout 0",
		Flags: command.Concat([]urfave.Flag{
			command.DeviceFlag(&o.device, "only of the device `ID` and its modules; * and ? stand for any letters"),
			command.ModuleFlag(&o.module, "only of the module `ID`"),
			&urfave.StringFlag{Name: "interface", Aliases: []string{"i"}, Destination: &o.model, Usage: "only of devices with the Plug and Play model `ID`"},
			command.Choice{Values: []string{"earliest", "latest"}, StringFlag: &urfave.StringFlag{
				Name: "from", Aliases: []string{"enqueued-time", "et"}, Destination: &o.from, DefaultText: "latest",
				Usage: "begin at earliest, latest, a `TIME` (RFC 3339), or so long ago (10m)"}},
			command.LastFlag(&o.last),
			&urfave.BoolFlag{Name: "follow", Aliases: []string{"f"}, Destination: &o.follow, Value: true, Usage: "go on with the events that come"},
			&urfave.StringFlag{Name: "consumer-group", Aliases: []string{"cg", "c"}, Destination: &o.group, DefaultText: "$Default", Usage: "read as the consumer `GROUP`"},
			&urfave.GenericFlag{Name: "properties", Aliases: []string{"props", "p"}, Value: &o.properties, Usage: "print properties too: `WHICH` is sys, app, anno (annotations) or all"},
			&urfave.StringFlag{Name: "content-type", Destination: &o.contentType, Usage: "take payloads for this `TYPE`, whatever the message says"},
			&urfave.IntFlag{Name: "message-count", Aliases: []string{"mc"}, Destination: &o.count, DefaultText: "no limit", Usage: "end after `N` events"},
			&urfave.GenericFlag{Name: "timeout", Aliases: []string{"t"}, Value: &o.idle, Usage: "end when nothing has come for so `LONG`; 0 never"},
		}, o.Flags()),
		Action: func(ctx *urfave.Context) error {
			if err := fail.First(o.Check(), o.complete(time.Now())); err != nil {
				return err
			}
			return printEvents(ctx.Context, s, o)
		},
	})
}

// complete fills in what has to be parsed.
func (o *eventsOptions) complete(now time.Time) error {
	if o.count < 0 {
		return fail.Usagef("--message-count %d is less than none", o.count)
	}
	for name, wanted := range map[string]string{"--device": o.device, "--module": o.module} {
		if _, err := path.Match(wanted, ""); err != nil {
			return fail.Usagef("%s %q is neither an id nor a pattern of one", name, wanted)
		}
	}
	for _, words := range o.properties {
		for word := range strings.FieldsFuncSeq(words, func(r rune) bool { return r == ',' || r == ' ' }) {
			switch strings.ToLower(word) {
			case "sys":
				o.sys = true
			case "app":
				o.app = true
			case "anno":
				o.an = true
			case "all":
				o.sys, o.app, o.an = true, true, true
			default:
				return fail.Usagef("--properties %q is none of sys, app, anno, all", word)
			}
		}
	}
	if err := command.CheckLast(o.last); err != nil {
		return err
	}
	o.query = hubamqp.EventQuery{ConsumerGroup: o.group, Last: o.last, Wants: o.wants, Follow: o.follow}
	var ago command.Seconds
	switch from := strings.ToLower(o.from); {
	case from == "earliest":
	case from == "latest" && o.last > 0:
		return fail.Usagef("--from latest leaves nothing for --last; give one of them")
	case from == "" && o.last > 0:
	case from == "latest" || from == "" && o.follow:
		o.query.Latest = true
	case from == "":
	case ago.Set(from) == nil:
		o.query.Since = now.Add(-time.Duration(ago))
	default:
		if ms, err := strconv.ParseInt(from, 10, 64); err == nil { // as az has it
			o.query.Since = time.UnixMilli(ms)
			return nil
		}
		since, err := time.Parse(time.RFC3339, o.from)
		if err != nil {
			return fail.Usagef("--from %q is none of earliest, latest, a time such as 2026-01-31T08:00:00Z, a duration such as 10m", o.from)
		}
		o.query.Since = since
	}
	return nil
}

// Why reading ends without anything being wrong.
var (
	errIdle   = errors.New("nothing has come")
	errEnough = errors.New("it is enough")
)

func printEvents(ctx context.Context, s output.Streams, o eventsOptions) error {
	t, client, err := o.OpenEvents(s)
	if err != nil {
		return err
	}
	defer client.Close()
	reading, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	await := func() {} // so long for the next event
	if o.idle > 0 && o.follow {
		idle := time.AfterFunc(time.Hour, func() { cancel(errIdle) }) // until reading has begun, which has limits of its own
		defer idle.Stop()
		await = func() { idle.Reset(time.Duration(o.idle)) }
	}
	q := o.query
	q.Begun = func([]string) {
		if o.follow {
			s.Note("Following the events of %s, press Ctrl-C to exit", t.Host())
		}
		await()
	}
	left := o.count
	var broken error
	err = client.Events(reading, q, func(e hubamqp.Event) error {
		if broken = o.print(s, e); broken != nil {
			return broken
		}
		await()
		if left--; left == 0 {
			return errEnough
		}
		return nil
	})
	switch {
	case broken != nil:
		return broken
	case errors.Is(err, errEnough):
		return nil
	case errors.Is(err, errIdle):
		s.Note("No event for %v, which is the end; --timeout 0 waits on", &o.idle)
		return nil
	case ctx.Err() != nil:
		return command.WhyEnded(ctx)
	}
	return explainEvents(ctx, t, o, err)
}

// explainEvents is ExplainAMQP for what only readers of events meet.
func explainEvents(ctx context.Context, t target.Target, o eventsOptions, err error) error {
	switch {
	case errors.Is(err, hubamqp.ErrNotFound):
		return fail.Errorf(fail.NotFound, "%s has no consumer group %q; leave out --consumer-group, or make it, for a hub of your own with \"iotdm hub run --consumer-group\"", t.Host(), o.group)
	case errors.Is(err, hubamqp.ErrLimit):
		return fail.Errorf(fail.Failed, "the consumer group has as many readers as it may have (5 for each partition); end one, or read as another with --consumer-group")
	case errors.Is(err, hubamqp.ErrStolen):
		return fail.Errorf(fail.Failed, "another reader has taken the place of this one; read as another consumer group with --consumer-group")
	}
	return t.ExplainAMQP(ctx, err, target.NoIdentity)
}

// wants reports whether the options ask for e.
func (o *eventsOptions) wants(e hubamqp.Event) bool {
	return like(o.device, e.DeviceID) && like(o.module, e.ModuleID) && (o.model == "" || o.model == e.Annotations["dt-dataschema"])
}

// like reports whether an id is the one that is wanted, or one of those; empty is
// any.
func like(wanted, id string) bool {
	match, _ := path.Match(wanted, id)
	return wanted == "" || wanted == id || match
}

func (o *eventsOptions) print(s output.Streams, e hubamqp.Event) error {
	doc := eventdoc.New(e, o.contentType)
	full, err := jsontext.Marshal(doc)
	if err != nil {
		return err
	}
	more := doc.Event
	if !o.sys {
		doc.Event.Properties.System = nil
	}
	if !o.app {
		doc.Event.Properties.Application = nil
	}
	if !o.an {
		doc.Event.Annotations = nil
	}
	return o.Output.PrintLine(s, output.Result{Value: doc, Text: func(w io.Writer) error {
		lines := output.Cut(w, event.Text(full)) + "\n"
		if o.sys {
			lines += indented(more.Properties.System)
		}
		if o.an {
			lines += indented(more.Annotations)
		}
		_, err := io.WriteString(w, lines)
		return err
	}})
}

// indented are the members of m, a line each.
func indented[V any](m map[string]V) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(m)) {
		fmt.Fprintf(&b, "  %s: %s\n", output.OneLine(name), output.OneLine(fmt.Sprint(m[name])))
	}
	return b.String()
}
