package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/tidwall/gjson"
	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/jsontext"
)

type serviceRebootOptions struct {
	serviceOptions
	device string
	call   methodOptions
	noWait bool
	watch  bool
	wait   seconds

	where         string // many devices instead of one
	limitFailures int
	batchSize     int
}

func serviceRebootCommand(s streams) *urfave.Command {
	o := serviceRebootOptions{call: methodOptions{method: rebootMethod}, wait: seconds(10 * time.Minute)}
	return leaf(&urfave.Command{
		Name:  "reboot",
		Usage: "reboot a device and wait until it reports when it did",
		Description: "Calls a direct method, prints the device's answer, and waits until the device reports what has come of\n" +
			"it: that it rebooted, came back without a reboot, or could not. A device that reports no more than the\n" +
			"tutorial's has rebooted when its rebootTime is newer than before the call. For example:\n" +
			"   iotdm service reboot --device device-1\n" +
			"   iotdm service reboot --device device-1 --connect-timeout 60 --timeout 60\n" +
			"   iotdm service reboot --where \"tags.site = 'north'\" --batch-size 100 --limit-failures 5",
		Flags: concat([]urfave.Flag{
			deviceFlag(&o.device, "the device `ID`"),
			whereFlag(&o.where, "reboot all devices that meet the query `CONDITION`, or '*', by a job"),
			&urfave.IntFlag{Name: "limit-failures", Destination: &o.limitFailures, DefaultText: "none", Usage: "with --where: stop when `N` devices have failed"},
			&urfave.IntFlag{Name: "batch-size", Destination: &o.batchSize, DefaultText: "all at once", Usage: "with --where: reboot `N` devices, wait until they are back, and go on with the next"},
			&urfave.BoolFlag{Name: "no-wait", Destination: &o.noWait, DisableDefaultText: true, Usage: "return after the device's answer"},
			&urfave.BoolFlag{Name: "watch", Destination: &o.watch, DisableDefaultText: true, Usage: "go on printing rebootTime every 5 s, until Ctrl-C"},
			&urfave.GenericFlag{Name: "wait", Value: &o.wait, Usage: "how `LONG` to wait for the report"},
		}, o.call.flags(), o.flags()),
		Action: func(ctx *urfave.Context) error {
			if err := o.check(); err != nil {
				return err
			}
			if o.where != "" {
				return rebootFleet(ctx.Context, s, o)
			}
			return rebootFromService(ctx.Context, s, o)
		},
	})
}

func (o *serviceRebootOptions) check() error {
	if o.noWait && o.watch {
		return usagef("--no-wait and --watch contradict each other; give one")
	}
	switch {
	case o.limitFailures < 0:
		return usagef("--limit-failures %d is negative", o.limitFailures)
	case o.batchSize < 0:
		return usagef("--batch-size %d is negative", o.batchSize)
	case o.where == "" && (o.limitFailures > 0 || o.batchSize > 0):
		return usagef("--limit-failures and --batch-size are for many devices; name them with --where")
	case o.where != "" && o.device != "":
		return usagef("give --device for one device or --where for many, not both")
	case o.where != "" && o.watch:
		return usagef("--watch is for one device; leave it out")
	case o.where != "":
		return firstError(o.call.check(), o.output.check())
	}
	return firstError(requireDevice(o.device), o.call.check(), o.output.check())
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

func rebootFromService(ctx context.Context, s streams, o serviceRebootOptions) error {
	call, err := o.call.call(s)
	if err != nil {
		return err
	}
	t, client, err := o.open(s)
	if err != nil {
		return err
	}
	defer client.Close()
	r := &rebooter{client: client, device: hubrest.Target{DeviceID: o.device}, call: call}
	s.note("Calling %s on %s, which has %v to answer ...", call.Name, o.device, &o.call.timeout)
	answer, err := r.invoke(ctx)
	if err != nil {
		return t.explainMethod(ctx, err, r.device)
	}
	report := rebootReport{Device: o.device, Status: answer.Status, Payload: answer.Payload, Verdict: verdictAnswered}
	refused := checkAnswer(r.device, call.Name, answer)
	if refused != nil {
		report.Verdict, report.Reason = verdictRefused, answeredStatus(answer.Status)
	}
	if o.output.forPeople() || o.noWait || o.watch || refused != nil {
		// A person sees the answer at once. A program gets one document, at the end.
		if err := o.printAnswer(s, report); err != nil {
			return err
		}
	}
	switch {
	case refused != nil || o.noWait:
		return refused
	case o.watch:
		return watchRebootTime(ctx, s, t, r, o.output)
	}
	return waitForReboot(ctx, s, t, r, o, report)
}

func (o *serviceRebootOptions) printAnswer(s streams, report rebootReport) error {
	return o.output.print(s, result{value: report, text: func(w io.Writer) error {
		doc, err := jsontext.Marshal(answerDocument{report.Status, report.Payload})
		if err == nil {
			_, err = fmt.Fprintf(w, "%s\n", doc)
		}
		return err
	}})
}

func waitForReboot(ctx context.Context, s streams, t target, r *rebooter, o serviceRebootOptions, report rebootReport) error {
	s.note("Waiting for %s to report its reboot ...", o.device)
	limited, cancel := context.WithTimeout(ctx, time.Duration(o.wait))
	defer cancel()
	now, verdict, reason, err := r.await(limited, func() { s.note("%s is rebooting", o.device) })
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
		return o.output.print(s, result{value: report, text: lastRebootTime(string(now.RebootTime))})
	}
	if !o.output.forPeople() {
		if err := o.printAnswer(s, report); err != nil {
			return err
		}
	}
	switch {
	case ctx.Err() != nil:
		return failf(statusFailed, "interrupted while waiting for %s; it was asked to reboot and may still do so", noun(r.device))
	case timedOut:
		return failf(statusTimeout, "%s %s: %s; look with \"iotdm service twin get --device %s\"", noun(r.device), report.Verdict, report.Reason, o.device)
	case err != nil:
		return t.explain(ctx, err, r.device)
	case verdict == verdictFailed:
		return failf(statusFailed, "%s has not rebooted: %s", noun(r.device), reason)
	}
	return failf(statusFailed, "%s %s: %s", noun(r.device), verdict, reason)
}

// watchRebootTime polls as the tutorial's service program does, until ctx ends.
func watchRebootTime(ctx context.Context, s streams, t target, r *rebooter, output outputOptions) error {
	s.note("Reading rebootTime every 5 s, press Ctrl-C to exit")
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		now, err := r.reported(ctx)
		rebootTime := string(now.RebootTime)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !mayPass(err):
			return t.explain(ctx, err, r.device)
		case err != nil:
			s.note("iotdm: %v", t.explain(ctx, err, r.device))
		case rebootTime == "":
			s.note("Waiting for %s to report its last reboot time ...", r.device.DeviceID)
		default:
			event := map[string]any{"device": r.device.DeviceID, "rebootTime": json.RawMessage(rebootTime)}
			if err := output.printEvent(s, result{value: event, text: lastRebootTime(rebootTime)}); err != nil {
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
