package device

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/mqttdevice"
	"github.com/iotdm/iotdm/twin"
)

type deviceTwinOptions struct {
	as     actAsOptions
	output output.Options
}

func (o *deviceTwinOptions) flags() []urfave.Flag {
	return command.Concat(o.as.flags("the `FOLDER` that the agent has as --state, for --provision"), []urfave.Flag{command.LimitFlag()}, o.output.Flags())
}

func deviceTwinGetCommand(s output.Streams) *urfave.Command {
	var o deviceTwinOptions
	return command.Leaf(&urfave.Command{
		Name:        "get",
		Usage:       "print desired and reported properties, as the device sees them",
		Description: onceHelp + "   iotdm device twin get --device device-1 --jq .desired",
		Flags:       o.flags(),
		Action: func(ctx *urfave.Context) error {
			if err := o.output.Check(); err != nil {
				return err
			}
			return getOwnTwin(ctx.Context, s, o)
		},
	})
}

func getOwnTwin(ctx context.Context, s output.Streams, o deviceTwinOptions) error {
	t, client, err := o.as.connectOnce(ctx, s)
	if err != nil {
		return err
	}
	defer client.Close()
	own, err := client.Twin(ctx)
	if err != nil {
		return t.ExplainDevice(ctx, err)
	}
	v := struct {
		Desired  json.RawMessage `json:"desired"`
		Reported json.RawMessage `json:"reported"`
	}{twin.WithVersion(own.Desired, own.DesiredVersion), twin.WithVersion(own.Reported, own.ReportedVersion)}
	return o.output.Print(s, output.Result{Value: v})
}

func deviceTwinReportCommand(s output.Streams) *urfave.Command {
	var o deviceTwinOptions
	return command.Leaf(&urfave.Command{
		Name:      "report",
		Usage:     "merge a patch into the reported properties",
		ArgsUsage: "PATCH",
		Description: "PATCH is a JSON object, @FILE or -. What is null is deleted.\n" + onceHelp +
			"   iotdm device twin report --device device-1 '{\"firmware\": \"1.2\", \"battery\": null}'",
		Flags: o.flags(),
		Action: func(ctx *urfave.Context) error {
			if err := o.output.Check(); err != nil {
				return err
			}
			patch, err := command.ReadObject(s, "PATCH", ctx.Args().First())
			if err != nil {
				return err
			}
			return reportProperties(ctx.Context, s, o, patch)
		},
	})
}

func reportProperties(ctx context.Context, s output.Streams, o deviceTwinOptions, patch json.RawMessage) error {
	t, client, err := o.as.connectOnce(ctx, s)
	if err != nil {
		return err
	}
	defer client.Close()
	version, err := client.PatchReported(ctx, patch)
	if err != nil {
		return t.ExplainDevice(ctx, err)
	}
	v := map[string]int64{"version": version}
	return o.output.Print(s, output.Result{Value: v, Text: func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "Reported properties of %s are now version %d\n", t.Identity(), version)
		return err
	}})
}

func deviceTwinWatchCommand(s output.Streams) *urfave.Command {
	var o deviceTwinOptions
	return command.Leaf(&urfave.Command{
		Name:  "watch",
		Usage: "print the desired properties and each change of them, until Ctrl-C",
		Description: "With --output json each change is one line.\n" + onceHelp +
			"   iotdm device twin watch --device device-1",
		Flags: o.flags(),
		Action: func(ctx *urfave.Context) error {
			if err := o.output.Check(); err != nil {
				return err
			}
			return watchDesired(ctx.Context, s, o)
		},
	})
}

// A desiredEvent is one change of the desired properties.
type desiredEvent struct {
	Time    time.Time       `json:"time"`
	Version int64           `json:"version"`
	Desired json.RawMessage `json:"desired"` // a merge patch
}

func watchDesired(ctx context.Context, s output.Streams, o deviceTwinOptions) error {
	t, client, err := o.as.connectOnce(ctx, s)
	if err != nil {
		return err
	}
	defer client.Close()
	s.Note("Watching the desired properties of %s, press Ctrl-C to exit", t.Identity())
	failed := make(chan error, 1)
	client.HandleDesired(func(_ context.Context, d mqttdevice.Desired) {
		if err := printDesired(s, o.output, d); err != nil {
			select {
			case failed <- err:
			default:
			}
		}
	})
	select {
	case <-ctx.Done():
		return command.WhyEnded(ctx)
	case err := <-failed:
		return err
	}
}

func printDesired(s output.Streams, opt output.Options, d mqttdevice.Desired) error {
	at := time.Now()
	e := desiredEvent{at.UTC(), d.Version, d.Patch}
	return opt.PrintEvent(s, output.Result{Value: e, Text: func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s  version %d: %s\n", at.Format(time.TimeOnly), d.Version, d.Patch)
		return err
	}})
}
