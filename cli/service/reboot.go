package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/tidwall/gjson"
	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/jsontext"
)

type rebootOptions struct {
	target.Service
	device string
	call   methodOptions
	noWait bool
	watch  bool
	wait   command.Seconds

	where         string // many devices instead of one
	limitFailures int
	batchSize     int
}

func rebootCommand(s output.Streams) *urfave.Command {
	o := rebootOptions{call: methodOptions{method: RebootMethod}, wait: command.Seconds(10 * time.Minute)}
	return command.Leaf(&urfave.Command{
		Name:      "reboot",
		ArgsUsage: "[DEVICE]",
		Usage:     "reboot a device and wait until it reports when it did",
		Description: "Calls a direct method, prints the device's answer, and waits until the device reports what has come of\n" +
			"it: that it rebooted, came back without a reboot, or could not. A device that reports no more than the\n" +
			"tutorial's has rebooted when its rebootTime is newer than before the call. For example:\n" +
			"   iotdm service reboot --device device-1\n" +
			"   iotdm service reboot --device device-1 --connect-timeout 60 --timeout 60\n" +
			"   iotdm service reboot --where \"tags.site = 'north'\" --batch-size 100 --limit-failures 5",
		Flags: command.Concat([]urfave.Flag{
			command.DeviceFlag(&o.device, "the device `ID`"),
			whereFlag(&o.where, "reboot all devices that meet the query `CONDITION`, or '*', by a job"),
			&urfave.IntFlag{Name: "limit-failures", Destination: &o.limitFailures, DefaultText: "none", Usage: "with --where: stop when `N` devices have failed"},
			&urfave.IntFlag{Name: "batch-size", Destination: &o.batchSize, DefaultText: "all at once", Usage: "with --where: reboot `N` devices, wait until they are back, and go on with the next"},
			&urfave.BoolFlag{Name: "no-wait", Destination: &o.noWait, DisableDefaultText: true, Usage: "return after the device's answer"},
			&urfave.BoolFlag{Name: "watch", Destination: &o.watch, DisableDefaultText: true, Usage: "go on printing rebootTime every 5 s, until Ctrl-C"},
			&urfave.GenericFlag{Name: "wait", Value: &o.wait, Usage: "how `LONG` to wait for the report"},
		}, o.call.flags(), o.Flags()),
		Action: func(ctx *urfave.Context) error {
			if err := o.Check(); err != nil {
				return err
			}
			if o.where != "" {
				return rebootFleet(ctx.Context, s, o)
			}
			return rebootFromService(ctx.Context, s, o)
		},
	})
}

// Check refuses options that make no sense together.
func (o *rebootOptions) Check() error {
	if o.noWait && o.watch {
		return fail.Usagef("--no-wait and --watch contradict each other; give one")
	}
	switch {
	case o.limitFailures < 0:
		return fail.Usagef("--limit-failures %d is negative", o.limitFailures)
	case o.batchSize < 0:
		return fail.Usagef("--batch-size %d is negative", o.batchSize)
	case o.where == "" && (o.limitFailures > 0 || o.batchSize > 0):
		return fail.Usagef("--limit-failures and --batch-size are for many devices; name them with --where")
	case o.where != "" && o.device != "":
		return fail.Usagef("give --device for one device or --where for many, not both")
	case o.where != "" && o.watch:
		return fail.Usagef("--watch is for one device; leave it out")
	case o.where != "":
		return fail.First(o.call.check(), o.Output.Check())
	}
	return fail.First(command.RequireDevice(o.device), o.call.check(), o.Output.Check())
}

// A rebootReport is what "service reboot" has learnt about a reboot.
type rebootReport struct {
	Device     string          `json:"device"`
	Status     int             `json:"status"`
	Payload    json.RawMessage `json:"payload"`
	Verdict    string          `json:"verdict"`
	Reason     string          `json:"reason,omitempty"`
	RebootTime json.RawMessage `json:"rebootTime,omitempty"`
	Reboot     json.RawMessage `json:"reboot,omitempty"` // what the device reports of it
}

func rebootFromService(ctx context.Context, s output.Streams, o rebootOptions) error {
	call, err := o.call.call(s)
	if err != nil {
		return err
	}
	t, client, err := o.Open(s)
	if err != nil {
		return err
	}
	defer client.Close()
	r := &Rebooter{Client: client, Device: hubrest.Target{DeviceID: o.device}, Call: call}
	s.Note("Calling %s on %s, which has %v to answer ...", call.Name, o.device, &o.call.timeout)
	answer, err := r.Invoke(ctx)
	if err != nil {
		return t.ExplainMethod(ctx, err, r.Device)
	}
	report := rebootReport{Device: o.device, Status: answer.Status, Payload: answer.Payload, Verdict: verdictAnswered}
	refused := target.CheckAnswer(r.Device, call.Name, answer)
	if refused != nil {
		report.Verdict, report.Reason = verdictRefused, answeredStatus(answer.Status)
	}
	if o.Output.ForPeople() || o.noWait || o.watch || refused != nil {
		// A person sees the answer at once. A program gets one document, at the end.
		if err := o.printAnswer(s, report); err != nil {
			return err
		}
	}
	switch {
	case refused != nil || o.noWait:
		return refused
	case o.watch:
		return watchRebootTime(ctx, s, t, r, o.Output)
	}
	return waitForReboot(ctx, s, t, r, o, report)
}

func (o *rebootOptions) printAnswer(s output.Streams, report rebootReport) error {
	return o.Output.Print(s, output.Result{Value: report, Text: func(w io.Writer) error {
		doc, err := jsontext.Marshal(answerDocument{report.Status, report.Payload})
		if err == nil {
			_, err = fmt.Fprintf(w, "%s\n", doc)
		}
		return err
	}})
}

func waitForReboot(ctx context.Context, s output.Streams, t target.Target, r *Rebooter, o rebootOptions, report rebootReport) error {
	s.Note("Waiting for %s to report its reboot ...", o.device)
	limited, cancel := context.WithTimeout(ctx, time.Duration(o.wait))
	defer cancel()
	now, verdict, reason, err := r.Await(limited, func() { s.Note("%s is rebooting", o.device) })
	if verdict != "" {
		report.Verdict, report.Reason = verdict, reason
	}
	if q := now.request(); q.ID != "" && q.ID == r.judge.request {
		report.Reboot = now.Reboot
	}
	timedOut := ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded)
	if timedOut {
		report.Verdict, report.Reason = verdictLost, late(o.wait, now)
	}
	if verdict == verdictRebooted {
		report.RebootTime = now.RebootTime
		return o.Output.Print(s, output.Result{Value: report, Text: lastRebootTime(string(now.RebootTime))})
	}
	if !o.Output.ForPeople() {
		if err := o.printAnswer(s, report); err != nil {
			return err
		}
	}
	switch {
	case ctx.Err() != nil:
		return fail.Errorf(fail.Interrupted, "interrupted while waiting for %s; it was asked to reboot and may still do so", target.Noun(r.Device))
	case timedOut:
		return fail.Errorf(fail.TimedOut, "%s %s: %s; look with \"iotdm service twin get --device %s\"", target.Noun(r.Device), report.Verdict, report.Reason, o.device)
	case err != nil:
		return t.Explain(ctx, err, r.Device)
	case verdict == verdictFailed:
		return fail.Errorf(fail.Failed, "%s has not rebooted: %s", target.Noun(r.Device), reason)
	}
	return fail.Errorf(fail.Failed, "%s %s: %s", target.Noun(r.Device), verdict, reason)
}

// watchRebootTime polls as the tutorial's service program does, until ctx ends.
func watchRebootTime(ctx context.Context, s output.Streams, t target.Target, r *Rebooter, opt output.Options) error {
	s.Note("Reading rebootTime every 5 s, press Ctrl-C to exit")
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		now, err := r.reported(ctx)
		rebootTime := string(now.RebootTime)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !mayPass(err):
			return t.Explain(ctx, err, r.Device)
		case err != nil:
			s.Note("iotdm: %v", t.Explain(ctx, err, r.Device))
		case rebootTime == "":
			s.Note("Waiting for %s to report its last reboot time ...", r.Device.DeviceID)
		default:
			event := map[string]any{"device": r.Device.DeviceID, "rebootTime": json.RawMessage(rebootTime)}
			if err := opt.PrintEvent(s, output.Result{Value: event, Text: lastRebootTime(rebootTime)}); err != nil {
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

// lastRebootTime writes what the tutorial's service program writes.
func lastRebootTime(rebootTime string) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "Last reboot time: %s\n", gjson.Parse(rebootTime))
		return err
	}
}
