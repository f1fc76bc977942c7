package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/condition"
	"github.com/iotdm/iotdm/internal/jsontext"
	"github.com/iotdm/iotdm/internal/phrase"
)

// taskOptions are those of a command that has one device, or many, do a task.
type taskOptions struct {
	target.Service
	device string
	noWait bool
	wait   command.Seconds
	at     string

	where         string // many devices instead of one
	limitFailures int
	batchSize     int
	failedOnly    bool
	guard         guard
}

// taskFlags are the flags that fill o. The verb is what is done to devices.
func (o *taskOptions) taskFlags(verb string) []urfave.Flag {
	return command.Concat([]urfave.Flag{
		command.DeviceFlag(&o.device, "the device `ID`"),
		whereFlag(&o.where, verb+" all devices that meet the query `CONDITION`, or '*', by a job"),
		&urfave.IntFlag{Name: "limit-failures", Destination: &o.limitFailures, DefaultText: "none", Usage: "with --where: stop when `N` devices have failed"},
		&urfave.IntFlag{Name: "batch-size", Destination: &o.batchSize, DefaultText: "all at once", Usage: "with --where: " + verb + " `N` devices, wait until they are done, and go on with the next"},
		&urfave.BoolFlag{Name: "failed", Destination: &o.failedOnly, DisableDefaultText: true, Usage: "with --where: print only the devices that failed"},
	}, o.guard.flags(), []urfave.Flag{
		&urfave.StringFlag{Name: "at", Destination: &o.at, Usage: "have the hub do it later: at a `TIME` such as 2026-12-24T06:00:00Z or 22:00, or after a duration such as +2h"},
		&urfave.BoolFlag{Name: "no-wait", Destination: &o.noWait, DisableDefaultText: true, Usage: "return after the device's answer"},
		&urfave.GenericFlag{Name: "wait", Value: &o.wait, Usage: "how `LONG` to wait for the report"},
	})
}

// Check refuses options that make no sense together.
func (o *taskOptions) Check() error {
	switch {
	case o.limitFailures < 0:
		return fail.Usagef("--limit-failures %d is negative", o.limitFailures)
	case o.batchSize < 0:
		return fail.Usagef("--batch-size %d is negative", o.batchSize)
	case o.where == "" && (o.limitFailures > 0 || o.batchSize > 0):
		return fail.Usagef("--limit-failures and --batch-size are for many devices; name them with --where")
	case o.where == "" && o.failedOnly:
		return fail.Usagef("--failed is for many devices; name them with --where")
	case o.where != "" && o.device != "":
		return fail.Usagef("give --device for one device or --where for many, not both")
	case o.at != "" && (o.limitFailures > 0 || o.batchSize > 0 || o.failedOnly):
		return fail.Usagef("with --at nobody is there to count or wait; leave out --limit-failures, --batch-size and --failed")
	case o.where == "":
		return fail.First(command.RequireDevice(o.device), o.Output.Check())
	}
	return o.Output.Check()
}

// condition chooses the device, or the devices.
func (o *taskOptions) condition() string {
	if o.where != "" {
		return o.where
	}
	return condition.AnyOf([]string{o.device})
}

// run has the device, or the devices, do the task. After one device's answer the
// function then, if not nil, goes on instead.
func (o *taskOptions) run(ctx context.Context, s output.Streams, k *task, call hubrest.Method, then func(target.Target, *Assignment) error) error {
	var at time.Time
	if o.at != "" {
		var err error
		if at, err = command.ParseTime("--at", o.at, time.Now()); err != nil {
			return err
		}
	}
	t, client, err := o.Open(s)
	if err != nil {
		return err
	}
	defer client.Close()
	device := hubrest.Target{DeviceID: o.device}
	if o.where == "" && (o.guard.dryRun || !at.IsZero()) { // what a query or a job would not say
		if _, err := client.Twin(ctx, device); err != nil {
			return t.Explain(ctx, err, device)
		}
	}
	if err := k.warn(ctx, s, client, o.condition()); err != nil {
		return t.Explain(ctx, err, target.NoIdentity)
	}
	if o.where != "" || o.guard.dryRun {
		addition := ""
		if !at.IsZero() {
			addition = " now, at " + localTime(at)
		}
		p := plan{verb: sentence(k.name), where: o.condition(), addition: addition, host: t.Host()}
		if goOn, err := o.guard.admit(ctx, s, client, o.Output, p); err != nil || !goOn {
			return t.Explain(ctx, err, target.NoIdentity)
		}
	}
	if !at.IsZero() {
		return o.schedule(ctx, s, t, client, k, call, at)
	}
	if o.where != "" {
		return rollOut(ctx, s, t, client, k, call, o)
	}
	return o.runOne(ctx, s, t, &Assignment{Device: device, Call: call, client: client, task: k}, then)
}

func (o *taskOptions) runOne(ctx context.Context, s output.Streams, t target.Target, e *Assignment, then func(target.Target, *Assignment) error) error {
	timeout := command.Seconds(e.Call.ResponseTimeout)
	s.Note("Calling %s on %s, which has %v to answer ...", e.Call.Name, o.device, &timeout)
	answer, err := e.Invoke(ctx)
	switch {
	case err != nil && e.judge != nil && ctx.Err() != nil:
		return fail.Errorf(fail.Interrupted, "interrupted while calling %s, which may act all the same; %s", target.Noun(e.Device), o.lookAtTwin())
	case err != nil:
		return t.ExplainMethod(ctx, err, e.Device)
	}
	report := taskReport{Device: o.device}
	report.answered(answer, e.judge)
	refused := report.Verdict == verdictRefused
	if o.Output.ForPeople() || o.noWait || then != nil || refused {
		// A person sees the answer at once. A program gets one document, at the end.
		if err := o.printAnswer(s, report); err != nil {
			return err
		}
	}
	switch {
	case refused:
		return target.CheckAnswer(e.Device, e.Call.Name, answer)
	case o.noWait:
		return nil
	case then != nil:
		return then(t, e)
	}
	return o.await(ctx, s, t, e, report)
}

func (o *taskOptions) lookAtTwin() string {
	return fmt.Sprintf("look with \"iotdm service twin get --device %s\"", o.device)
}

func (o *taskOptions) printAnswer(s output.Streams, report taskReport) error {
	return o.Output.Print(s, output.Result{Value: report, Text: func(w io.Writer) error {
		doc, err := jsontext.Marshal(answerDocument{report.Status, report.Payload})
		if err == nil {
			_, err = fmt.Fprintf(w, "%s\n", doc)
		}
		return err
	}})
}

// await waits for the end of a task that the device has begun.
func (o *taskOptions) await(ctx context.Context, s output.Streams, t target.Target, e *Assignment, report taskReport) error {
	s.Note("Waiting for %s to report its %s ...", o.device, e.task.name)
	limited, cancel := context.WithTimeout(ctx, time.Duration(o.wait))
	defer cancel()
	found, err := e.Await(limited, func(f Finding) {
		if f.Reason != "" {
			f.Verdict += ": " + output.OneLine(phrase.Clip(f.Reason))
		}
		s.Note("%s is %s", o.device, f.Verdict)
	})
	if found.Verdict != "" {
		report.Finding = found
	}
	timedOut := ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded)
	if timedOut {
		report.Verdict, report.Reason = verdictLost, e.task.late(o.wait, found, e.seen)
	}
	if e.task.did(found.Verdict) {
		return o.Output.Print(s, output.Result{Value: report, Text: func(w io.Writer) error {
			_, err := fmt.Fprintln(w, output.Printable(e.task.success(found)))
			return err
		}})
	}
	if !o.Output.ForPeople() {
		if err := o.printAnswer(s, report); err != nil {
			return err
		}
	}
	noun := target.Noun(e.Device)
	switch {
	case ctx.Err() != nil:
		return fail.Errorf(fail.Interrupted, "interrupted while waiting for %s; it was asked to %s and may still do so; %s", noun, e.task.name, o.lookAtTwin())
	case timedOut:
		return fail.Errorf(fail.TimedOut, "%s %s: %s; %s", noun, report.Verdict, report.Reason, o.lookAtTwin())
	case err != nil:
		return t.Explain(ctx, err, e.Device)
	}
	return fail.Errorf(fail.Failed, "%s %s: %s", noun, e.task.failure(found), output.OneLine(found.Reason))
}
