package service

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/condition"
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
