package service

import (
	"context"
	"errors"
	"iter"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/hubrest"
)

func registrationCommands(s output.Streams) *urfave.Command {
	return command.Group("registration", "which devices have registered with the provisioning service",
		registrationGetCommand(s), registrationListCommand(s), registrationDeleteCommand(s))
}

var registrationColumns = []output.Column{
	{"REGISTRATION", "registrationId"}, {"STATUS", "status"}, {"HUB", "assignedHub"}, {"DEVICE", "deviceId"},
	{"ERROR", "errorMessage"}, {"UPDATED", "lastUpdatedDateTimeUtc"},
}

// registrationOptions are those of a command about registrations that are named.
type registrationOptions struct {
	target.Provisioning
	id       string
	etag     string
	ifExists bool
}

func (o *registrationOptions) flags() []urfave.Flag {
	return command.Concat([]urfave.Flag{
		&urfave.StringFlag{Name: "registration-id", Aliases: []string{"rid"}, Destination: &o.id, Usage: "the registration `ID`, instead of the argument"},
	}, o.Flags())
}

// each runs a command about the registrations that are its arguments.
func (o *registrationOptions) each(ctx *urfave.Context, s output.Streams, columns []output.Column, call func(context.Context, *hubrest.ProvisioningClient) (any, error)) error {
	if o.id == "" {
		return fail.Usagef("REGISTRATION is missing; see \"iotdm service registration list\"")
	}
	if err := o.Output.Check(); err != nil {
		return err
	}
	return o.Each(ctx, s, target.ErrandWith[*hubrest.ProvisioningClient]{
		Columns: columns,
		Call: func(ctx context.Context, client *hubrest.ProvisioningClient, _ string) (any, error) {
			return call(ctx, client)
		},
		Explain: explainRegistration,
	})
}

// explainRegistration is Target.Explain for a request about a registration.
func explainRegistration(ctx context.Context, t target.Target, err error, id string) error {
	switch {
	case errors.Is(err, hubrest.ErrNotFound):
		return fail.Errorf(fail.NotFound, "no device has registered as %q on %s; see \"iotdm service registration list\"", id, t.Host())
	case errors.Is(err, hubrest.ErrPreconditionFailed):
		return fail.Errorf(fail.Failed, "registration %q was changed in the meantime; look at it and try again", id)
	}
	return t.Explain(ctx, err, target.NoIdentity)
}

func registrationGetCommand(s output.Streams) *urfave.Command {
	var o registrationOptions
	return command.Leaf(&urfave.Command{
		Name:        "get",
		Usage:       "print to which hub devices were assigned, or why they were not",
		ArgsUsage:   "[REGISTRATION...]",
		Description: "For example:\n   iotdm service registration get device-1 --jq .assignedHub",
		Flags:       o.flags(),
		Action: func(ctx *urfave.Context) error {
			return o.each(ctx, s, registrationColumns, func(ctx context.Context, client *hubrest.ProvisioningClient) (any, error) {
				return client.Registration(ctx, o.id)
			})
		},
	})
}

func registrationDeleteCommand(s output.Streams) *urfave.Command {
	var o registrationOptions
	return command.Leaf(&urfave.Command{
		Name:      "delete",
		Usage:     "forget that devices have registered, so that the next time is their first",
		ArgsUsage: "[REGISTRATION...]",
		Description: "The identities of the devices stay on their hubs. For example:\n" +
			"   iotdm service registration delete device-1 device-2",
		Flags: command.Concat([]urfave.Flag{command.ETagFlag(&o.etag), ifExistsFlag(&o.ifExists)}, o.flags()),
		Action: func(ctx *urfave.Context) error {
			return o.each(ctx, s, nil, func(ctx context.Context, client *hubrest.ProvisioningClient) (any, error) {
				return nil, passMissing(s, o.ifExists, "registration "+o.id, client.DeleteRegistration(ctx, o.id, o.etag))
			})
		},
	})
}

type registrationListOptions struct {
	target.Provisioning
	group string
	top   int
}

func registrationListCommand(s output.Streams) *urfave.Command {
	var o registrationListOptions
	return command.Leaf(&urfave.Command{
		Name:      "list",
		Usage:     "list the registrations, all or those of an enrollment group",
		ArgsUsage: "[GROUP]",
		Description: "For example:\n" +
			"   iotdm service registration list\n" +
			"   iotdm service registration list line-7 --jq '.[] | select(.status == \"failed\") | .registrationId'",
		Flags: command.Concat([]urfave.Flag{
			&urfave.StringFlag{Name: group.flag, Aliases: group.aliases, Destination: &o.group, Usage: "only those of the enrollment group `ID`"},
			topFlag(&o.top, "registrations"),
		}, o.Flags()),
		Action: func(ctx *urfave.Context) error {
			if err := fail.First(checkTop(ctx, o.top), o.Output.Check()); err != nil {
				return err
			}
			t, client, err := o.Open(s)
			if err != nil {
				return err
			}
			defer client.Close()
			list := allRegistrations(ctx.Context, client)
			if o.group != "" {
				list = registrationsOf(ctx.Context, t, client, o.group, pageOf(o.top))
			}
			return printList(ctx.Context, s, o.Output, t, list, o.top, "registration", registrationColumns)
		},
	})
}

// registrationsOf yields the registrations of a group.
func registrationsOf(ctx context.Context, t target.Target, client *hubrest.ProvisioningClient, id string, page int) iter.Seq2[hubrest.Registration, error] {
	return func(yield func(hubrest.Registration, error) bool) {
		for r, err := range client.Registrations(ctx, id, page) {
			if err != nil {
				err = group.explain(ctx, t, err, id)
			}
			if !yield(r, err) {
				return
			}
		}
	}
}

// allRegistrations yields those of individual enrollments, which stand with these,
// and those of each group.
func allRegistrations(ctx context.Context, client *hubrest.ProvisioningClient) iter.Seq2[hubrest.Registration, error] {
	return func(yield func(hubrest.Registration, error) bool) {
		for e, err := range client.Enrollments(ctx, hubrest.Individual, 0) {
			if err != nil {
				yield(hubrest.Registration{}, err)
				return
			}
			if e.RegistrationState != nil && !yield(*e.RegistrationState, nil) {
				return
			}
		}
		for g, err := range client.Enrollments(ctx, hubrest.Group, 0) {
			if err != nil {
				yield(hubrest.Registration{}, err)
				return
			}
			for r, err := range client.Registrations(ctx, g.GroupID, 0) {
				if isMissing(err) { // the group has gone since
					break
				}
				if !yield(r, err) {
					return
				}
			}
		}
	}
}

func isMissing(err error) bool { return errors.Is(err, hubrest.ErrNotFound) }
