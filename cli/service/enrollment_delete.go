package service

import (
	"context"
	"fmt"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/hubrest"
)

type enrollmentDeleteOptions struct {
	enrollmentOptions
	etag     string
	ifExists bool
	all      bool
	confirm  command.Confirmation
}

func enrollmentDeleteCommand(s output.Streams, k enrollmentKind) *urfave.Command {
	o := &enrollmentDeleteOptions{enrollmentOptions: enrollmentOptions{kind: k}}
	return command.Leaf(&urfave.Command{
		Name:      "delete",
		Usage:     "remove " + k.noun + "s; what has registered stays on its hub",
		ArgsUsage: "[" + k.argument + "...]",
		Description: "For example:\n" +
			"   " + k.path("delete") + " " + k.example + "\n" +
			"   " + k.path("delete") + " --all\n\n" +
			"With --all it says first how many there are, and asks; a script says --yes.",
		Flags: command.Concat([]urfave.Flag{
			command.ETagFlag(&o.etag),
			ifExistsFlag(&o.ifExists),
			&urfave.BoolFlag{Name: "all", Destination: &o.all, DisableDefaultText: true, Usage: "remove all " + k.noun + "s"},
			o.confirm.Flag(),
		}, o.flags()),
		Action: func(ctx *urfave.Context) error {
			if err := o.check(); err != nil {
				return err
			}
			if o.all {
				return deleteEnrollments(ctx.Context, s, o)
			}
			return o.Each(ctx, s, target.ErrandWith[*hubrest.ProvisioningClient]{
				Call: func(ctx context.Context, client *hubrest.ProvisioningClient, _ string) (any, error) {
					return nil, passMissing(s, o.ifExists, k.noun+" "+o.id, client.DeleteEnrollment(ctx, k.kind, o.id, o.etag))
				},
				Explain: k.explain,
			})
		},
	})
}

// check refuses options that make no sense together.
func (o *enrollmentDeleteOptions) check() error {
	switch {
	case o.all && o.id != "":
		return fail.Usagef("name %ss, or give --all, not both", o.kind.noun)
	case o.all && (o.etag != "" || o.ifExists):
		return fail.Usagef("--etag and --if-exists are for %ss that are named; leave them out with --all", o.kind.noun)
	case o.all:
		return o.Output.Check()
	}
	return o.enrollmentOptions.check()
}

// deleteEnrollments deletes all enrollments of a kind, once the user agrees.
func deleteEnrollments(ctx context.Context, s output.Streams, o *enrollmentDeleteOptions) error {
	t, client, err := o.Open(s)
	if err != nil {
		return err
	}
	defer client.Close()
	// All are looked for first: what is deleted meanwhile would shift the pages.
	var ids []string
	for e, err := range client.Enrollments(ctx, o.kind.kind, 0) {
		if err != nil {
			return t.Explain(ctx, err, target.NoIdentity)
		}
		ids = append(ids, e.ID())
	}
	found := output.Count(len(ids), o.kind.noun)
	if len(ids) == 0 {
		s.Note("There are no %ss", o.kind.noun)
		return nil
	}
	if err := o.confirm.Ask(ctx, s, "Delete "+found); err != nil {
		return err
	}
	progress := output.NewTally(s)
	defer progress.Clear()
	for n, id := range ids {
		progress.Show(n, fmt.Sprintf("%d of %s", n, found))
		err := client.DeleteEnrollment(ctx, o.kind.kind, id, "")
		switch {
		case ctx.Err() != nil:
			return fail.Errorf(fail.Interrupted, "interrupted: %d of %s deleted, the others are as they were", n, found)
		case err != nil && !isMissing(err): // somebody else was faster
			explained := o.kind.explain(ctx, t, err, id)
			return fail.Errorf(fail.ExitStatus(explained), "%v: %d of %s deleted", explained, n, found)
		}
	}
	progress.Tell("Deleted %s", found)
	return nil
}
