package service

import (
	"context"
	"fmt"
	"strings"

	"github.com/tidwall/gjson"
	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/bulk"
	"github.com/iotdm/iotdm/internal/condition"
	"github.com/iotdm/iotdm/internal/jsontext"
)

type deviceDeleteOptions struct {
	deviceOptions
	etag     string
	ifExists bool
	where    string // many devices instead of some
	guard    guard
}

func deviceDeleteCommand(s output.Streams) *urfave.Command {
	var o deviceDeleteOptions
	return command.Leaf(&urfave.Command{
		Name:      "delete",
		Usage:     "remove device identities with their twins and modules",
		ArgsUsage: "[DEVICE...]",
		Description: "For example:\n" +
			"   iotdm service device delete device-1 device-2\n" +
			"   iotdm service device delete --where \"tags.site = 'north' AND status = 'disabled'\" --dry-run\n\n" +
			"With --where it says first how many devices that are, and asks; a script says --yes.",
		Flags: command.Concat(o.Flags(), []urfave.Flag{
			command.ETagFlag(&o.etag),
			ifExistsFlag(&o.ifExists),
			whereFlag(&o.where, "remove all devices that meet the query `CONDITION`, or '*'"),
		}, o.guard.flags()),
		Action: func(ctx *urfave.Context) error {
			if err := o.Check(); err != nil {
				return err
			}
			if o.where != "" {
				return deleteDevices(ctx.Context, s, o)
			}
			return o.Each(ctx, s, target.Errand{
				Call: func(ctx context.Context, client *hubrest.Client, _ string) (any, error) {
					return nil, passMissing(s, o.ifExists, "device "+o.device, client.DeleteDevice(ctx, o.device, o.etag))
				},
				Explain: func(ctx context.Context, t target.Target, err error, _ string) error {
					return t.Explain(ctx, err, o.About())
				},
			})
		},
	})
}

// Check refuses options that make no sense together.
func (o *deviceDeleteOptions) Check() error {
	switch {
	case o.where != "" && o.device != "":
		return fail.Usagef("name devices, or give --where for all that meet a condition, not both")
	case o.where != "" && (o.etag != "" || o.ifExists):
		return fail.Usagef("--etag and --if-exists are for devices that are named; leave them out with --where")
	case o.where == "" && o.guard.dryRun:
		return fail.Usagef("--dry-run goes with --where")
	case o.where == "":
		return o.deviceOptions.Check()
	}
	return o.Output.Check()
}

// deleteDevices deletes all devices that meet the condition, by bulk requests.
func deleteDevices(ctx context.Context, s output.Streams, o deviceDeleteOptions) error {
	t, client, err := o.Open(s)
	if err != nil {
		return err
	}
	defer client.Close()
	if goOn, err := o.guard.admit(ctx, s, client, o.Output, plan{verb: "Delete", where: o.where, host: t.Host()}); err != nil || !goOn {
		return t.Explain(ctx, err, target.NoIdentity)
	}
	// All are looked for first: what is deleted meanwhile would shift the pages.
	var lines strings.Builder
	for row, err := range client.Query(ctx, "SELECT deviceId FROM devices"+condition.Where(o.where), maxPage) {
		if err != nil {
			return t.Explain(ctx, err, target.NoIdentity)
		}
		line, err := jsontext.Marshal(hubrest.BulkEntry{ID: gjson.GetBytes(row, "deviceId").String(), ImportMode: hubrest.ImportDelete})
		if err != nil {
			return err
		}
		fmt.Fprintf(&lines, "%s\n", line)
	}
	return runDelete(ctx, s, t, client, o, lines.String())
}

// A deletion is what came of all, for programs.
type deletion struct {
	Deleted  int               `json:"deleted"`
	Failed   int               `json:"failed"`
	Failures []deletionFailure `json:"failures"`
}

type deletionFailure struct {
	DeviceID string `json:"deviceId"`
	Reason   string `json:"reason"`
}

func runDelete(ctx context.Context, s output.Streams, t target.Target, client *hubrest.Client, o deviceDeleteOptions, lines string) error {
	reader, err := bulk.NewReader(strings.NewReader(lines), "ndjson")
	if err != nil {
		return err
	}
	progress := output.NewTally(s)
	found := strings.Count(lines, "\n")
	done := deletion{Failures: []deletionFailure{}}
	im := &bulk.Import{Client: client, Mode: hubrest.ImportDelete, Parallel: 4, FromLine: 1, Lines: reader, Paused: progress.TellPause}
	im.Report = func(r bulk.LineResult) error {
		if r.Failed() {
			done.Failures = append(done.Failures, deletionFailure{r.ID, r.Why()})
			if len(done.Failures) <= mostRows {
				progress.Tell("%s: %s", r.ID, r.Why())
			}
		}
		progress.Show(im.Counts.Lines(), fmt.Sprintf("%d of %s", im.Counts.Lines(), output.Count(found, "device")))
		return nil
	}
	err = im.Run(ctx)
	progress.Clear()
	done.Deleted, done.Failed = im.Counts.Done(), im.Counts.Failed
	if !o.Output.ForPeople() {
		if err := o.Output.Print(s, output.Result{Value: done}); err != nil {
			return err
		}
	}
	rest := fmt.Sprintf("%d of %s deleted", done.Deleted, output.Count(found, "device"))
	switch {
	case ctx.Err() != nil:
		return fail.Errorf(fail.Interrupted, "interrupted: %s, the others are as they were", rest)
	case err != nil:
		explained := t.Explain(ctx, err, target.NoIdentity)
		return fail.Errorf(fail.ExitStatus(explained), "%v: %s", explained, rest)
	case done.Failed > 0:
		return fail.Errorf(fail.Failed, "%s, %d failed", rest, done.Failed)
	}
	s.Note("Deleted %s", output.Count(done.Deleted, "device"))
	return nil
}
