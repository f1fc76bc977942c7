package hub

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/tidwall/gjson"
	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/hubrest"
)

type journalOptions struct {
	target.Service
	query  hubrest.JournalQuery
	on     string
	after  uint64
	follow bool
	wait   command.Seconds
	clear  bool
}

func journalCommand(s output.Streams) *urfave.Command {
	var o journalOptions
	return command.Leaf(&urfave.Command{
		Name:  "journal",
		Usage: "print what was asked of a hub under test, and what it did",
		Description: "Each entry has a number. With --output json each is a line. --wait returns as soon as there is an entry\n" +
			"that all other flags let pass, and exits with 5 if none comes in time: so a test need not sleep.\n" +
			"For example:\n" +
			"   iotdm hub journal --device device-1 --on telemetry --wait 10s --output json\n" +
			"   iotdm hub journal --follow --on connection,rest\n" +
			"   iotdm hub journal --clear",
		Flags: command.Concat([]urfave.Flag{
			command.DeviceFlag(&o.query.Device, "only about the device `ID` and its modules, or a module as DEVICE/MODULE"),
			&urfave.StringFlag{Name: "on", Destination: &o.on, Usage: "only `KINDS` of rest,connection,subscription,telemetry,twin,method,message"},
			&urfave.StringFlag{Name: "what", Destination: &o.query.What, Usage: "only what `HAPPENED`, such as connected, received, reported, called or delivered"},
			&urfave.Uint64Flag{Name: "after", Destination: &o.after, DefaultText: "0", Usage: "only entries behind the `NUMBER`"},
			&urfave.IntFlag{Name: "limit", Destination: &o.query.Limit, DefaultText: "all", Usage: "print up to `N` entries"},
			&urfave.BoolFlag{Name: "follow", Aliases: []string{"f"}, Destination: &o.follow, DisableDefaultText: true, Usage: "go on with the entries that come, until Ctrl-C"},
			&urfave.GenericFlag{Name: "wait", Value: &o.wait, DefaultText: "not", Usage: "how `LONG` to wait for an entry"},
			&urfave.BoolFlag{Name: "clear", Destination: &o.clear, DisableDefaultText: true, Usage: "empty the journal, whose numbers go on"},
		}, o.Flags()),
		Action: func(ctx *urfave.Context) error {
			if err := o.check(); err != nil {
				return err
			}
			if o.clear {
				return o.Call(ctx.Context, s, target.NoIdentity, func(ctx context.Context, client *hubrest.Client) (any, error) {
					n, err := client.ClearJournal(ctx)
					return output.Result{Value: map[string]int{"cleared": n}, Text: notes(s, "Cleared %s", entries(n))}, err
				})
			}
			return printJournal(ctx.Context, s, o)
		},
	})
}

func entries(n int) string {
	if n == 1 {
		return "1 entry"
	}
	return fmt.Sprint(n, " entries")
}

func (o *journalOptions) check() error {
	if o.on != "" {
		o.query.On = strings.Split(o.on, ",")
	}
	switch {
	case o.follow && o.wait > 0:
		return fail.Usagef("--follow waits for ever; leave out --wait")
	case o.clear && (o.follow || o.wait > 0 || o.on != "" || o.query.Device != "" || o.query.What != "" || o.after > 0 || o.query.Limit > 0):
		return fail.Usagef("--clear empties all of the journal; give it alone")
	case o.query.Limit < 0:
		return fail.Usagef("--limit %d is negative", o.query.Limit)
	}
	return o.Check()
}

// journalPoll is how long a request for the next entries waits.
const journalPoll = 30 * time.Second

func printJournal(ctx context.Context, s output.Streams, o journalOptions) error {
	t, client, err := o.Open(s)
	if err != nil {
		return err
	}
	defer client.Close()
	if o.follow {
		s.Note("Following the journal of %s, press Ctrl-C to exit", t.Host())
	}
	q, printed := o.query, 0
	q.After = o.after
	until := time.Now().Add(time.Duration(o.wait))
	for {
		if q.Wait = min(time.Until(until), journalPoll); o.follow {
			q.Wait = journalPoll
		}
		if o.query.Limit > 0 {
			q.Limit = o.query.Limit - printed
		}
		page, err := client.Journal(ctx, q)
		switch {
		case err != nil && ctx.Err() != nil && o.follow:
			return command.WhyEnded(ctx)
		case err != nil:
			return t.Explain(ctx, err, target.NoIdentity)
		}
		if page.Lost > 0 {
			s.Note("%d older entries had to make room", page.Lost)
		}
		for _, entry := range page.Entries {
			printed++
			if err := o.Output.PrintEvent(s, output.Result{Value: entry, Text: func(w io.Writer) error {
				_, err := fmt.Fprintln(w, output.Cut(w, journalLine(entry)))
				return err
			}}); err != nil {
				return err
			}
		}
		more := page.Last > q.After && len(page.Entries) > 0
		q.After = page.Last
		switch {
		case o.query.Limit > 0 && printed >= o.query.Limit:
			return nil
		case o.follow:
		case more && o.wait == 0:
		case o.wait == 0 || printed > 0:
			return nil
		case !time.Now().Before(until):
			return fail.Errorf(fail.TimedOut, "no such entry came within %s; leave out flags to see what did", &o.wait)
		}
	}
}

// journalLine is an entry for people.
func journalLine(doc json.RawMessage) string {
	e := gjson.ParseBytes(doc)
	text := func(path string) string { return output.OneLine(e.Get(path).String()) }
	at, _ := time.Parse(time.RFC3339, e.Get("time").String())
	line := fmt.Sprintf("%d  %s  %s %s", e.Get("number").Int(), at.Local().Format(time.TimeOnly), text("on"), text("what"))
	who := text("deviceId")
	if module := text("moduleId"); module != "" {
		who += "/" + module
	}
	if e.Get("on").String() == "rest" { // its verb says what, its path whom
		line = fmt.Sprintf("%d  %s  rest %s", e.Get("number").Int(), at.Local().Format(time.TimeOnly), text("verb"))
		who = ""
	}
	for _, part := range []string{who, text("path"), text("name"), text("status"), text("reason"), text("body")} {
		if part != "" {
			line += "  " + part
		}
	}
	return line
}
