package hub

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/event"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/phrase"
)

type eventsOptions struct {
	target.Service
	device  string
	sources urfave.StringSlice
	since   string
	last    int
	follow  bool
}

// eventSources are the short names beside those of IoT Hub.
var eventSources = map[string]hubrest.EventSource{
	"telemetry":  hubrest.SourceTelemetry,
	"twin":       hubrest.SourceTwinChange,
	"lifecycle":  hubrest.SourceDeviceLifecycle,
	"connection": hubrest.SourceConnectionState,
}

func hubEventsCommand(s output.Streams) *urfave.Command {
	var o eventsOptions
	return command.Leaf(&urfave.Command{
		Name:  "events",
		Usage: "print what devices sent and what happened to them",
		Description: "Prints the telemetry that the hub keeps, or with --follow that which comes, until Ctrl-C. Give --last or\n" +
			"--since too for both. With --output json each event is a line in the shape of \"az iot hub monitor-events\".\n" +
			"For example:\n" +
			"   iotdm hub events -n 10 -f\n" +
			"   iotdm hub events --since 10m --device device-1 --source all\n" +
			"   iotdm hub events --follow --jq .event.payload",
		Flags: command.Concat([]urfave.Flag{
			command.DeviceFlag(&o.device, "only of the device `ID` and its modules"),
			&urfave.StringSliceFlag{Name: "source", Destination: &o.sources, DefaultText: "telemetry", Usage: "those of `SOURCE` telemetry, twin, lifecycle, connection or all, repeatable"},
			&urfave.StringFlag{Name: "since", Destination: &o.since, Usage: "begin at a `TIME` (RFC 3339), or so long ago (10m)"},
			command.LastFlag(&o.last),
			&urfave.BoolFlag{Name: "follow", Aliases: []string{"f"}, Destination: &o.follow, DisableDefaultText: true, Usage: "go on with the events that come, until Ctrl-C"},
		}, o.Flags()),
		Action: func(ctx *urfave.Context) error {
			if err := o.Output.Check(); err != nil {
				return err
			}
			q, err := o.query(time.Now())
			if err != nil {
				return err
			}
			return printEvents(ctx.Context, s, o, q)
		},
	})
}

func (o *eventsOptions) query(now time.Time) (hubrest.EventQuery, error) {
	q := hubrest.EventQuery{Device: o.device, Last: o.last, Follow: o.follow, Latest: o.follow && o.since == "" && o.last == 0}
	err := command.CheckLast(o.last)
	switch names := o.sources.Value(); {
	case err != nil:
	case len(names) == 0:
		q.Sources = []hubrest.EventSource{hubrest.SourceTelemetry}
	case !slices.ContainsFunc(names, func(name string) bool { return strings.EqualFold(name, "all") }):
		q.Sources, err = parseSources("--source", names)
	}
	if err != nil || o.since == "" {
		return q, err
	}
	var ago command.Seconds
	if ago.Set(o.since) == nil {
		q.Since = now.Add(-time.Duration(ago))
		return q, nil
	}
	if q.Since, err = time.Parse(time.RFC3339, o.since); err != nil {
		return q, fail.Usagef("--since %q is neither a time such as 2026-01-31T08:00:00Z nor a duration such as 10m", o.since)
	}
	return q, nil
}

// parseSources reads the names that a flag was given, short ones or IoT Hub's.
func parseSources(flag string, names []string) (sources []hubrest.EventSource, err error) {
	for _, name := range names {
		source, known := eventSources[strings.ToLower(name)]
		for _, full := range eventSources {
			if strings.EqualFold(name, string(full)) {
				source, known = full, true
			}
		}
		if !known {
			return nil, fail.Usagef("%s %q is none of telemetry, twin, lifecycle, connection%s", flag, name, phrase.Choose(flag == "--source", ", all", ""))
		}
		sources = append(sources, source)
	}
	return sources, nil
}

func printEvents(ctx context.Context, s output.Streams, o eventsOptions, q hubrest.EventQuery) error {
	t, client, err := o.Open(s)
	if err != nil {
		return err
	}
	defer client.Close()
	begun := func() {
		if q.Follow {
			s.Note("Following the events of %s, press Ctrl-C to exit", t.Host())
		}
	}
	q.Damaged = func(d hubrest.EventDamage) {
		s.Note("The hub's event log is damaged: the events in %d bytes at offset %s are lost", d.Bytes, output.OneLine(d.Offset))
	}
	var broken error
	err = client.Events(ctx, q, begun, func(doc json.RawMessage) error {
		broken = o.Output.PrintEvent(s, output.Result{Value: doc, Text: func(w io.Writer) error {
			_, err := fmt.Fprintln(w, output.Cut(w, event.Text(doc)))
			return err
		}})
		return broken
	})
	switch {
	case broken != nil:
		return broken
	case ctx.Err() != nil && q.Follow:
		return command.WhyEnded(ctx)
	case err == nil && q.Follow:
		return fail.Errorf(fail.Failed, "%s has ended the stream of events; is it shutting down?", t.Host())
	}
	return t.Explain(ctx, err, target.NoIdentity)
}
