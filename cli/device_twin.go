package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/mqttdevice"
	"github.com/iotdm/iotdm/twin"
)

type deviceTwinOptions struct {
	as     actAsOptions
	output outputOptions
}

func (o *deviceTwinOptions) flags() []urfave.Flag {
	return concat(o.as.flags(), []urfave.Flag{limitFlag()}, o.output.flags())
}

func deviceTwinGetCommand(s streams) *urfave.Command {
	var o deviceTwinOptions
	return leaf(&urfave.Command{
		Name:        "get",
		Usage:       "print desired and reported properties, as the device sees them",
		Description: onceHelp + "   iotdm device twin get --device device-1 --jq .desired",
		Flags:       o.flags(),
		Action: func(ctx *urfave.Context) error {
			if err := o.output.check(); err != nil {
				return err
			}
			return getOwnTwin(ctx.Context, s, o)
		},
	})
}

func getOwnTwin(ctx context.Context, s streams, o deviceTwinOptions) error {
	t, client, err := o.as.connectOnce(ctx, s)
	if err != nil {
		return err
	}
	defer client.Close()
	own, err := client.Twin(ctx)
	if err != nil {
		return t.explainDevice(ctx, err)
	}
	v := struct {
		Desired  json.RawMessage `json:"desired"`
		Reported json.RawMessage `json:"reported"`
	}{twin.WithVersion(own.Desired, own.DesiredVersion), twin.WithVersion(own.Reported, own.ReportedVersion)}
	return o.output.print(s, result{value: v})
}

func deviceTwinReportCommand(s streams) *urfave.Command {
	var o deviceTwinOptions
	return leaf(&urfave.Command{
		Name:      "report",
		Usage:     "merge a patch into the reported properties",
		ArgsUsage: "PATCH",
		Description: "PATCH is a JSON object, @FILE or -. What is null is deleted.\n" + onceHelp +
			"   iotdm device twin report --device device-1 '{\"firmware\": \"1.2\", \"battery\": null}'",
		Flags: o.flags(),
		Action: func(ctx *urfave.Context) error {
			if err := o.output.check(); err != nil {
				return err
			}
			patch, err := readObject(s, "PATCH", ctx.Args().First())
			if err != nil {
				return err
			}
			return reportProperties(ctx.Context, s, o, patch)
		},
	})
}

func reportProperties(ctx context.Context, s streams, o deviceTwinOptions, patch json.RawMessage) error {
	t, client, err := o.as.connectOnce(ctx, s)
	if err != nil {
		return err
	}
	defer client.Close()
	version, err := client.PatchReported(ctx, patch)
	if err != nil {
		return t.explainDevice(ctx, err)
	}
	v := map[string]int64{"version": version}
	return o.output.print(s, result{value: v, text: func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "Reported properties of %s are now version %d\n", t.identity(), version)
		return err
	}})
}

func deviceTwinWatchCommand(s streams) *urfave.Command {
	var o deviceTwinOptions
	return leaf(&urfave.Command{
		Name:  "watch",
		Usage: "print the desired properties and each change of them, until Ctrl-C",
		Description: "With --output json each change is one line.\n" + onceHelp +
			"   iotdm device twin watch --device device-1",
		Flags: o.flags(),
		Action: func(ctx *urfave.Context) error {
			if err := o.output.check(); err != nil {
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

func watchDesired(ctx context.Context, s streams, o deviceTwinOptions) error {
	t, client, err := o.as.connectOnce(ctx, s)
	if err != nil {
		return err
	}
	defer client.Close()
	s.note("Watching the desired properties of %s, press Ctrl-C to exit", t.identity())
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
		return whyEnded(ctx)
	case err := <-failed:
		return err
	}
}

func printDesired(s streams, opt outputOptions, d mqttdevice.Desired) error {
	at := time.Now()
	e := desiredEvent{at.UTC(), d.Version, d.Patch}
	return opt.printEvent(s, result{value: e, text: func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s  version %d: %s\n", at.Format(time.TimeOnly), d.Version, d.Patch)
		return err
	}})
}
