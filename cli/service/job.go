package service

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/condition"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/hubrest"
)

func jobCommands(s output.Streams) *urfave.Command {
	return command.Group("job", "call a direct method, or patch twins, on many devices",
		jobCreateCommand(s), jobGetCommand(s), jobListCommand(s), jobCancelCommand(s), jobWatchCommand(s))
}

// jobColumns are what the table of jobs shows.
var jobColumns = []output.Column{
	{"JOB", "jobId"}, {"TYPE", "type"}, {"STATUS", "status"}, {"CREATED", "createdTime"}, {"ENDED", "endTime"},
	{"DEVICES", "deviceJobStatistics.deviceCount"}, {"SUCCEEDED", "deviceJobStatistics.succeededCount"},
	{"FAILED", "deviceJobStatistics.failedCount"},
}

func whereFlag(where *string, usage string) urfave.Flag {
	return &urfave.StringFlag{Name: "where", Aliases: []string{"query-condition"}, Destination: where, Usage: usage}
}

// newJobID makes an id that sorts by time.
func newJobID(kind string) string {
	return kind + "-" + time.Now().UTC().Format("20060102-150405") + "-" + strings.ToLower(rand.Text()[:6])
}

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
	job, err := client.CreateJob(ctx, request)
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

// explainJob is Target.Explain for a request about a job.
func explainJob(ctx context.Context, t target.Target, err error, id string) error {
	answer, ok := asAnswer(err)
	switch {
	case !ok:
	case answer.Status == 404:
		return fail.Errorf(fail.NotFound, "job %s does not exist on %s; see \"iotdm service job list\"", id, t.Host())
	case answer.Status == 409:
		return fail.Errorf(fail.Failed, "job %s exists already on %s", id, t.Host())
	case answer.Status == 429:
		return fail.Errorf(fail.Failed, "%s runs as many jobs as it can; wait until one has ended (see \"iotdm service job list --status running\"), or give a later --start", t.Host())
	}
	return t.Explain(ctx, err, target.NoIdentity)
}

// jobOptions are those of commands about one job.
type jobOptions struct {
	target.Service
	id string
}

// jobCommand finishes a command about jobs, which are its arguments or --job.
func jobCommand(s output.Streams, c *urfave.Command, run func(*urfave.Context, output.Streams, jobOptions) error) *urfave.Command {
	var o jobOptions
	c.Flags = command.Concat([]urfave.Flag{
		&urfave.StringFlag{Name: "job", Aliases: []string{"job-id"}, Destination: &o.id, Usage: "the job's `ID`, instead of the argument"},
	}, o.Flags())
	c.Action = func(ctx *urfave.Context) error {
		if o.id == "" {
			return fail.Usagef("JOB is missing; see \"iotdm service job list\"")
		}
		if err := o.Output.Check(); err != nil {
			return err
		}
		return run(ctx, s, o)
	}
	return command.Leaf(c)
}

func jobGetCommand(s output.Streams) *urfave.Command {
	return jobCommand(s, &urfave.Command{Name: "get", Usage: "print jobs", ArgsUsage: "[JOB...]",
		Description: "For example:\n   iotdm service job get job-1"}, onJobs((*hubrest.Client).Job))
}

func jobCancelCommand(s output.Streams) *urfave.Command {
	return jobCommand(s, &urfave.Command{Name: "cancel", Usage: "end jobs, so that they reach no more devices", ArgsUsage: "[JOB...]",
		Description: "For example:\n   iotdm service job cancel job-1 job-2"}, onJobs((*hubrest.Client).CancelJob))
}

// onJobs makes a request about each job and prints the jobs.
func onJobs(do func(*hubrest.Client, context.Context, string) (hubrest.Job, error)) func(*urfave.Context, output.Streams, jobOptions) error {
	return func(ctx *urfave.Context, s output.Streams, o jobOptions) error {
		return o.Each(ctx, s, target.Errand{Columns: jobColumns, Explain: explainJob, Call: func(ctx context.Context, client *hubrest.Client, id string) (any, error) {
			return do(client, ctx, id)
		}})
	}
}

func jobWatchCommand(s output.Streams) *urfave.Command {
	return jobCommand(s, &urfave.Command{Name: "watch", Usage: "show a job's progress, and its failures as they come, until it has ended", ArgsUsage: "[JOB]",
		Description: "For example:\n   iotdm service job watch job-1"},
		func(ctx *urfave.Context, s output.Streams, o jobOptions) error {
			t, client, err := o.Open(s)
			if err != nil {
				return err
			}
			defer client.Close()
			return watchJob(ctx.Context, s, t, client, o.Output, o.id, 0)
		})
}

type jobListOptions struct {
	target.Service
	kind, status string
}

func jobListCommand(s output.Streams) *urfave.Command {
	var o jobListOptions
	return command.Leaf(&urfave.Command{
		Name:  "list",
		Usage: "list jobs",
		Description: "For example:\n" +
			"   iotdm service job list --status running",
		Flags: command.Concat([]urfave.Flag{
			&urfave.StringFlag{Name: "type", Aliases: []string{"job-type"}, Destination: &o.kind, Usage: "only jobs of this `TYPE`: method or twin"},
			&urfave.StringFlag{Name: "status", Aliases: []string{"job-status"}, Destination: &o.status, Usage: "only jobs that are `STATUS`: queued, scheduled, running, completed, failed or cancelled"},
		}, o.Flags()),
		Action: func(ctx *urfave.Context) error {
			switch o.kind {
			case "method":
				o.kind = string(hubrest.JobMethod)
			case "twin":
				o.kind = string(hubrest.JobTwin)
			case "", string(hubrest.JobMethod), string(hubrest.JobTwin):
			default:
				return fail.Usagef("--type %q is neither method nor twin", o.kind)
			}
			if err := o.Output.Check(); err != nil {
				return err
			}
			return listJobs(ctx.Context, s, o)
		},
	})
}

func listJobs(ctx context.Context, s output.Streams, o jobListOptions) error {
	return o.Call(ctx, s, target.NoIdentity, func(ctx context.Context, client *hubrest.Client) (any, error) {
		jobs := []hubrest.Job{}
		for job, err := range client.Jobs(ctx, hubrest.JobType(o.kind), hubrest.JobStatus(o.status)) {
			if err != nil {
				return nil, err
			}
			jobs = append(jobs, job)
		}
		return output.Result{Value: jobs, Columns: jobColumns}, nil
	})
}

// watchJob follows a job, prints it, and fails if it or one of its devices did.
// It cancels the job when a limit of failures other than 0 is reached.
func watchJob(ctx context.Context, s output.Streams, t target.Target, client *hubrest.Client, opt output.Options, id string, limit int) error {
	f := newFollower(s, client, id)
	job, err := f.followUpTo(ctx, limit)
	if err != nil {
		if ctx.Err() != nil {
			return fail.Errorf(fail.Interrupted, "interrupted; job %s goes on: see \"iotdm service job watch %s\", or end it with \"iotdm service job cancel %s\"", id, id, id)
		}
		return explainJob(ctx, t, err, id)
	}
	if err := opt.Print(s, output.Result{Value: job}); err != nil {
		return err
	}
	switch n := job.Statistics; {
	case job.Status == hubrest.JobFailed:
		return fail.Errorf(fail.Failed, "job %s failed: %s", id, job.FailureReason)
	case job.Status == hubrest.JobCancelled && limit > 0 && len(f.told) >= limit:
		return fail.Errorf(fail.Failed, "job %s was stopped after %s", id, output.Count(len(f.told), "failure"))
	case job.Status == hubrest.JobCancelled:
		return fail.Errorf(fail.Failed, "job %s was cancelled", id)
	case n != nil && n.Failed > 0:
		if n.Failed > mostNotes {
			s.Note("All failures: iotdm service query \"SELECT * FROM devices.jobs WHERE devices.jobs.jobId = %s AND devices.jobs.status = 'failed'\"", condition.Quote(id))
		}
		text := fmt.Sprintf("job %s failed on %d of %s", id, n.Failed, output.Count(n.Devices, "device"))
		if f.refused > 0 {
			text += fmt.Sprintf(", and %d answered with another status than 2xx", f.refused)
		}
		return fail.Errorf(fail.Failed, "%s", text)
	case n != nil && f.refused > 0:
		return fail.Errorf(fail.Failed, "job %s: %d of %s answered with another status than 2xx", id, f.refused, output.Count(n.Devices, "device"))
	case n != nil && n.Devices == 0: // any more
		s.Note("No device matches the condition")
	}
	return nil
}
