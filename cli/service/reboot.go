package service

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/internal/reboot"
)

type rebootOptions struct {
	taskOptions
	call  methodOptions
	watch bool
}

func rebootCommand(s output.Streams) *urfave.Command {
	o := rebootOptions{call: methodOptions{method: reboot.Method}}
	o.wait = command.Seconds(10 * time.Minute)
	return command.Leaf(&urfave.Command{
		Name:      "reboot",
		ArgsUsage: "[DEVICE]",
		Usage:     "reboot devices, and wait until they report when they did",
		Description: "Calls a direct method, prints the device's answer, and waits until the device reports what has come of\n" +
			"it: that it rebooted, came back without a reboot, or could not. A device that reports no more than the\n" +
			"tutorial's has rebooted when its rebootTime is newer than before the call. For example:\n" +
			"   iotdm service reboot --device device-1\n" +
			"   iotdm service reboot --device device-1 --connect-timeout 60 --timeout 60\n" +
			"   iotdm service reboot --device device-1 --at 22:00\n" +
			"   iotdm service reboot --where \"tags.site = 'north'\" --dry-run\n" +
			"   iotdm service reboot --where \"tags.site = 'north'\" --batch-size 100 --limit-failures 5\n\n" +
			"With --where it says first how many devices that are, and asks; a script says --yes. Ctrl-C cancels the\n" +
			"job: devices that were called go on, the others are left alone.",
		Flags: command.Concat(o.taskFlags("reboot"), []urfave.Flag{
			&urfave.BoolFlag{Name: "watch", Destination: &o.watch, DisableDefaultText: true, Usage: "go on printing rebootTime every 5 s, until Ctrl-C"},
		}, o.call.flags(), o.Flags()),
		Action: func(ctx *urfave.Context) error {
			if err := o.Check(); err != nil {
				return err
			}
			return rebootFromService(ctx.Context, s, o)
		},
	})
}

// Check refuses options that make no sense together.
func (o *rebootOptions) Check() error {
	switch {
	case o.noWait && o.watch:
		return fail.Usagef("--no-wait and --watch contradict each other; give one")
	case o.where != "" && o.watch:
		return fail.Usagef("--watch is for one device; leave it out")
	case o.at != "" && o.watch:
		return fail.Usagef("--watch is for a reboot that is now; leave it out, or --at")
	}
	return fail.First(o.taskOptions.Check(), o.call.check())
}

func rebootFromService(ctx context.Context, s output.Streams, o rebootOptions) error {
	call, err := o.call.call(s)
	if err != nil {
		return err
	}
	var then func(target.Target, *Assignment) error
	if o.watch {
		then = func(t target.Target, e *Assignment) error { return watchRebootTime(ctx, s, t, e, o.Output) }
	}
	return o.run(ctx, s, rebootTask, call, then)
}

// watchRebootTime polls as the tutorial's service program does, until ctx ends.
func watchRebootTime(ctx context.Context, s output.Streams, t target.Target, e *Assignment, opt output.Options) error {
	s.Note("Reading rebootTime every 5 s, press Ctrl-C to exit")
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		now, err := e.task.reportedBy(ctx, e.client, e.Device)
		rebootTime := now.properties["rebootTime"]
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !mayPass(err):
			return t.Explain(ctx, err, e.Device)
		case err != nil:
			s.Note("iotdm: %v", t.Explain(ctx, err, e.Device))
		case rebootTime == nil:
			s.Note("Waiting for %s to report its last reboot time ...", e.Device.DeviceID)
		default:
			event := map[string]any{"device": e.Device.DeviceID, "rebootTime": json.RawMessage(rebootTime)}
			if err := opt.PrintEvent(s, output.Result{Value: event, Text: func(w io.Writer) error {
				_, err := fmt.Fprintln(w, output.Printable(lastRebootTime(rebootTime)))
				return err
			}}); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
