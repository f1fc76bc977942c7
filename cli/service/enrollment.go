package service

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"iter"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/jsontext"
)

// An enrollmentKind is how the commands about one kind of enrollment speak of it.
type enrollmentKind struct {
	kind     hubrest.EnrollmentKind
	name     string   // of the group of commands
	usage    string   // of that
	noun     string   // in sentences
	argument string   // in the help
	flag     string   // that names the same
	aliases  []string // of the flag
	column   output.Column
	example  string // an id
}

var (
	individual = enrollmentKind{hubrest.Individual, "enrollment", "which devices may register with the provisioning service, one by one",
		"enrollment", "ENROLLMENT", "enrollment-id", []string{"eid", "registration-id", "rid"}, output.Column{"ENROLLMENT", "registrationId"}, "device-1"}
	group = enrollmentKind{hubrest.Group, "enrollment-group", "which devices may register by a key or certificate of their group",
		"enrollment group", "GROUP", "group-id", []string{"gid", "enrollment-id", "eid"}, output.Column{"GROUP", "enrollmentGroupId"}, "line-7"}
)

func enrollmentCommands(s output.Streams, k enrollmentKind) *urfave.Command {
	return command.Group(k.name, k.usage,
		enrollmentCreateCommand(s, k), enrollmentGetCommand(s, k), enrollmentListCommand(s, k), enrollmentUpdateCommand(s, k),
		enrollmentDeleteCommand(s, k), enrollmentKeysCommand(s, k), enrollmentImportCommand(s, k), enrollmentExportCommand(s, k))
}

// columns are what the table of enrollments shows.
func (k enrollmentKind) columns() []output.Column {
	columns := []output.Column{k.column, {"STATUS", "provisioningStatus"}, {"ATTESTATION", "attestation.type"}, {"ALLOCATION", "allocationPolicy"}}
	if k.kind == hubrest.Individual {
		columns = append(columns, output.Column{"REGISTRATION", "registrationState.status"}, output.Column{"HUB", "registrationState.assignedHub"})
	}
	return append(columns, output.Column{"UPDATED", "lastUpdatedDateTimeUtc"})
}

// newEnrollment returns an enrollment with the id.
func (k enrollmentKind) newEnrollment(id string) hubrest.Enrollment {
	if k.kind == hubrest.Group {
		return hubrest.Enrollment{GroupID: id}
	}
	return hubrest.Enrollment{RegistrationID: id}
}

// path is a command of the kind as people type it.
func (k enrollmentKind) path(verb string) string { return "iotdm service " + k.name + " " + verb }

// explain is Target.Explain for a request about an enrollment.
func (k enrollmentKind) explain(ctx context.Context, t target.Target, err error, id string) error {
	switch {
	case errors.Is(err, hubrest.ErrNotFound):
		return fail.Errorf(fail.NotFound, "%s %q does not exist on %s; see \"%s\"", k.noun, id, t.Host(), k.path("list"))
	case errors.Is(err, hubrest.ErrAlreadyExists):
		return fail.Errorf(fail.Failed, "%s %q exists already on %s; change it with \"%s\"", k.noun, id, t.Host(), k.path("update"))
	case errors.Is(err, hubrest.ErrPreconditionFailed):
		return fail.Errorf(fail.Failed, "%s %q was changed by somebody else in the meantime; look at it and try again", k.noun, id)
	}
	return t.Explain(ctx, err, target.NoIdentity)
}

// enrollmentOptions are those of a command about enrollments that are named.
type enrollmentOptions struct {
	target.Provisioning
	kind     enrollmentKind
	id       string
	showKeys bool
}

func (o *enrollmentOptions) flags() []urfave.Flag {
	return command.Concat([]urfave.Flag{
		&urfave.StringFlag{Name: o.kind.flag, Aliases: o.kind.aliases, Destination: &o.id, Usage: "the " + o.kind.noun + " `ID`, instead of the argument"},
	}, o.Flags())
}

func (o *enrollmentOptions) showKeysFlag() urfave.Flag {
	return &urfave.BoolFlag{Name: "show-keys", Aliases: []string{"keys"}, Destination: &o.showKeys, DisableDefaultText: true, Usage: "print its keys too"}
}

func (o *enrollmentOptions) check() error {
	if o.id == "" {
		return fail.Usagef("%s is missing; see \"%s\"", o.kind.argument, o.kind.path("list"))
	}
	return o.Output.Check()
}

// enrollmentCall is a call about the enrollment that the options name.
type enrollmentCall func(context.Context, *hubrest.ProvisioningClient, *enrollmentOptions) (any, error)

// enrollmentCommand finishes a command about enrollments that are its arguments.
func enrollmentCommand(s output.Streams, c *urfave.Command, o *enrollmentOptions, columns []output.Column, call enrollmentCall, more ...urfave.Flag) *urfave.Command {
	c.ArgsUsage = cmp.Or(c.ArgsUsage, "["+o.kind.argument+"...]")
	c.Flags = command.Concat(more, o.flags())
	c.Action = func(ctx *urfave.Context) error {
		if err := o.check(); err != nil {
			return err
		}
		return o.Each(ctx, s, target.ErrandWith[*hubrest.ProvisioningClient]{
			Columns: columns,
			Call: func(ctx context.Context, client *hubrest.ProvisioningClient, _ string) (any, error) {
				return call(ctx, client, o)
			},
			Explain: o.kind.explain,
		})
	}
	return command.Leaf(c)
}

func enrollmentGetCommand(s output.Streams, k enrollmentKind) *urfave.Command {
	o := &enrollmentOptions{kind: k}
	return enrollmentCommand(s, &urfave.Command{
		Name:        "get",
		Usage:       "print " + k.noun + "s, without their keys",
		Description: "For example:\n   " + k.path("get") + " " + k.example + "\n   " + k.path("get") + " " + k.example + " --show-keys --jq .attestation.symmetricKey.primaryKey",
	}, o, k.columns(), func(ctx context.Context, client *hubrest.ProvisioningClient, o *enrollmentOptions) (any, error) {
		e, err := client.Enrollment(ctx, k.kind, o.id)
		if err == nil && o.showKeys {
			err = readKeys(ctx, client, &e)
		}
		return o.shown(e), err
	}, o.showKeysFlag())
}

// readKeys fills in the keys of an enrollment, which services keep back.
func readKeys(ctx context.Context, client *hubrest.ProvisioningClient, e *hubrest.Enrollment) error {
	if e.Attestation.Type != hubrest.BySymmetricKey {
		return nil
	}
	a, err := client.AttestationMechanism(ctx, e.Kind(), e.ID())
	if err == nil {
		e.Attestation.SymmetricKey = a.SymmetricKey
	}
	return err
}

// shown is an enrollment as it is printed.
func (o *enrollmentOptions) shown(e hubrest.Enrollment) hubrest.Enrollment {
	if !o.showKeys {
		e.Attestation.SymmetricKey = nil
	}
	return e
}

func enrollmentKeysCommand(s output.Streams, k enrollmentKind) *urfave.Command {
	o := &enrollmentOptions{kind: k}
	description := "For example:\n   " + k.path("keys") + " " + k.example + " --jq .primaryKey"
	if k.kind == hubrest.Group {
		description = "A device has a key of its own that is derived from these:\n" +
			"\"iotdm sas derive-key\" makes it. " + description
	}
	return enrollmentCommand(s, &urfave.Command{Name: "keys", Usage: "print the keys of " + k.noun + "s", Description: description},
		o, []output.Column{k.column, {"PRIMARY KEY", "primaryKey"}, {"SECONDARY KEY", "secondaryKey"}},
		func(ctx context.Context, client *hubrest.ProvisioningClient, o *enrollmentOptions) (any, error) {
			a, err := client.AttestationMechanism(ctx, k.kind, o.id)
			if err != nil {
				return nil, err
			}
			if a.SymmetricKey == nil {
				return nil, fail.Errorf(fail.Failed, "%s %q has no keys: its devices have certificates (attestation %s)", k.noun, o.id, a.Type)
			}
			e := k.newEnrollment(o.id)
			return struct {
				RegistrationID string `json:"registrationId,omitempty"`
				GroupID        string `json:"enrollmentGroupId,omitempty"`
				hubrest.SymmetricKey
			}{e.RegistrationID, e.GroupID, *a.SymmetricKey}, nil
		})
}

type enrollmentListOptions struct {
	target.Provisioning
	top int
}

func topFlag(top *int, what string) urfave.Flag {
	return &urfave.IntFlag{Name: "top", Destination: top, Usage: "list at most `N` " + what, DefaultText: "all"}
}

func checkTop(ctx *urfave.Context, top int) error {
	if ctx.IsSet("top") && top < 1 {
		return fail.Usagef("--top %d is less than 1", top)
	}
	return nil
}

func enrollmentListCommand(s output.Streams, k enrollmentKind) *urfave.Command {
	var o enrollmentListOptions
	return command.Leaf(&urfave.Command{
		Name:        "list",
		Usage:       "list the " + k.noun + "s",
		Description: "For example:\n   " + k.path("list") + "\n   " + k.path("list") + " --jq '.[] | select(.provisioningStatus == \"disabled\") | " + "." + k.column.Path() + "'",
		Flags:       command.Concat([]urfave.Flag{topFlag(&o.top, k.noun+"s")}, o.Flags()),
		Action: func(ctx *urfave.Context) error {
			if err := fail.First(checkTop(ctx, o.top), o.Output.Check()); err != nil {
				return err
			}
			t, client, err := o.Open(s)
			if err != nil {
				return err
			}
			defer client.Close()
			shown := enrollmentOptions{}
			list := func(yield func(hubrest.Enrollment, error) bool) {
				for e, err := range client.Enrollments(ctx.Context, k.kind, pageOf(o.top)) {
					if !yield(shown.shown(e), err) {
						return
					}
				}
			}
			return printList(ctx.Context, s, o.Output, t, list, o.top, k.noun, k.columns())
		},
	})
}

// pageOf is how many rows of a list are asked for at a time; the service knows best
// for a long one.
func pageOf(top int) int {
	if top > 0 && top < maxPage {
		return top
	}
	return 0
}

// printList prints a list, of which no more than top if that is not 0, as it comes.
func printList[T any](ctx context.Context, s output.Streams, opt output.Options, t target.Target, list iter.Seq2[T, error], top int, noun string, columns []output.Column) error {
	rows := func(yield func(json.RawMessage, error) bool) {
		progress, n := output.NewRowTally(s), 0
		defer progress.Clear()
		for v, err := range list {
			var row json.RawMessage
			if err == nil {
				row, err = jsontext.Marshal(v)
			}
			if err != nil {
				err = t.Explain(ctx, err, target.NoIdentity)
			}
			if n++; !yield(row, err) || n == top {
				return
			}
			progress.Show(n, output.Count(n, noun))
		}
	}
	return opt.PrintRows(s, rows, func([]json.RawMessage) []output.Column { return columns })
}
