package service

import (
	"context"
	"encoding/json"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/hubrest"
)

type jobCreateOptions struct {
	target.Service
	id            string
	where         string
	call          methodOptions
	tags, desired string
	start         string
	maxTime       command.Seconds
	wait          bool
	limitFailures int
	ifMissing     bool
	guard         guard
}

func jobCreateCommand(s output.Streams) *urfave.Command {
	o := jobCreateOptions{maxTime: command.Seconds(time.Hour)}
	return command.Leaf(&urfave.Command{
		Name:  "create",
		Usage: "start a job, or schedule it for later",
		Description: "CONDITION is what stands behind WHERE in a query of devices, or '*' for all. How many devices meet it\n" +
			"is said first, and a person is asked; a script says --yes. For example:\n" +
			"   iotdm service job create --where \"tags.site = 'north'\" --method lockDoor --wait\n" +
			"   iotdm service job create --where '*' --desired '{\"interval\": 60}' --start 2026-12-24T06:00:00Z",
		Flags: command.Concat([]urfave.Flag{
			&urfave.StringFlag{Name: "job", Aliases: []string{"job-id"}, Destination: &o.id, Usage: "the job's `ID` (default: made from the time)"},
			whereFlag(&o.where, "all devices that meet the query `CONDITION`, or '*'"),
			&urfave.StringFlag{Name: "tags", Destination: &o.tags, Usage: "patch the twins' tags with this `JSON` object, @FILE or -"},
			&urfave.StringFlag{Name: "desired", Destination: &o.desired, Usage: "patch the desired properties with this `JSON` object, @FILE or -"},
			&urfave.StringFlag{Name: "start", Aliases: []string{"start-time"}, Destination: &o.start, Usage: "when: a `TIME` such as 2026-12-24T06:00:00Z or 22:00, or a duration from now such as +2h"},
			&urfave.GenericFlag{Name: "max-time", Aliases: []string{"ttl"}, Value: &o.maxTime, Usage: "how `LONG` the job may run"},
			&urfave.BoolFlag{Name: "wait", Destination: &o.wait, DisableDefaultText: true, Usage: "show the progress until it has ended, as \"job watch\""},
			&urfave.IntFlag{Name: "limit-failures", Destination: &o.limitFailures, DefaultText: "none", Usage: "with --wait: cancel the job when `N` devices have failed"},
			ifMissingFlag(&o.ifMissing),
		}, o.guard.flags(), o.call.flags(), o.Flags()),
		Action: func(ctx *urfave.Context) error {
			if err := o.Check(); err != nil {
				return err
			}
			return createJob(ctx.Context, s, o)
		},
	})
}

// Check refuses options that make no sense together.
func (o *jobCreateOptions) Check() error {
	patch := o.tags != "" || o.desired != ""
	switch {
	case o.where == "":
		return fail.Usagef("--where is missing; give a condition such as \"tags.site = 'north'\", or '*' for all devices")
	case patch && o.call.method != "":
		return fail.Usagef("a job does one thing; give --method, or --tags and --desired")
	case !patch && o.call.method == "":
		return fail.Usagef("what is the job to do? give --method, or --tags or --desired")
	case o.limitFailures < 0:
		return fail.Usagef("--limit-failures %d is negative", o.limitFailures)
	case o.limitFailures > 0 && !o.wait:
		return fail.Usagef("--limit-failures needs --wait: nobody else would count the failures")
	case o.ifMissing && o.id == "":
		return fail.Usagef("--if-missing needs --job: a job without an id of its own is always a new one")
	case o.call.method != "":
		return fail.First(o.call.check(), o.Output.Check())
	}
	return o.Output.Check()
}

func (o *jobCreateOptions) request(s output.Streams) (r hubrest.JobRequest, err error) {
	r = hubrest.JobRequest{ID: o.id, Condition: o.where, MaxTime: time.Duration(o.maxTime)}
	if r.ID == "" {
		r.ID = newJobID("job")
	}
	if o.start != "" {
		if r.Start, err = command.ParseTime("--start", o.start, time.Now()); err != nil {
			return r, err
		}
	}
	if o.call.method != "" {
		call, err := o.call.call(s)
		r.Method = &call
		return r, err
	}
	r.Twin = new(hubrest.TwinChange)
	if o.tags != "" {
		if r.Twin.Tags, err = command.ReadObject(s, "--tags", o.tags); err != nil {
			return r, err
		}
	}
	if o.desired != "" {
		r.Twin.Desired, err = command.ReadObject(s, "--desired", o.desired)
	}
	return r, err
}

func createJob(ctx context.Context, s output.Streams, o jobCreateOptions) error {
	request, err := o.request(s)
	if err != nil {
		return err
	}
	t, client, err := o.Open(s)
	if err != nil {
		return err
	}
	defer client.Close()
	p := plan{verb: "Patch the twins of", where: o.where, host: t.Host()}
	if request.Method != nil {
		p.verb = "Call " + request.Method.Name + " on"
	}
	if !request.Start.IsZero() {
		p.addition = " now, at " + localTime(request.Start)
	}
	if goOn, err := o.guard.admit(ctx, s, client, o.Output, p); err != nil || !goOn {
		return t.Explain(ctx, err, target.NoIdentity)
	}
	job, err := beginJob(ctx, s, client, request)
	if o.ifMissing {
		job, err = keepExisting(s, "job "+request.ID, "take another --job", askedJob(request), job, err, func() (hubrest.Job, error) {
			return client.Job(ctx, request.ID)
		})
	}
	if err != nil {
		return explainJob(ctx, t, err, request.ID)
	}
	if o.wait {
		s.Note("Job %s is %s", job.ID, job.Status)
		return watchJob(ctx, s, t, client, o.Output, request.ID, o.limitFailures)
	}
	return o.Output.Print(s, output.Result{Value: job})
}

// beginJob creates a job. When the answer is lost, or not waited for, nobody knows
// whether the hub has it: the user is told how to look.
func beginJob(ctx context.Context, s output.Streams, client *hubrest.Client, r hubrest.JobRequest) (hubrest.Job, error) {
	job, err := client.CreateJob(ctx, r)
	if _, answered := asAnswer(err); err != nil && !answered {
		s.Note("Whether job %s has begun is not known; look with \"iotdm service job get %s\"", r.ID, r.ID)
	}
	return job, err
}

// askedJob is a job of which only what was asked for is known.
func askedJob(r hubrest.JobRequest) hubrest.Job {
	j := hubrest.Job{Condition: r.Condition}
	if r.Method != nil {
		j.Method, _ = json.Marshal(map[string]any{"methodName": r.Method.Name, "payload": r.Method.Payload})
	}
	if r.Twin != nil {
		j.Twin, _ = json.Marshal(map[string]any{"tags": r.Twin.Tags, "properties": map[string]any{"desired": r.Twin.Desired}})
	}
	return j
}
