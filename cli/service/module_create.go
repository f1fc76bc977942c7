package service

import (
	"context"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/hubrest"
)

type moduleWriteOptions struct {
	moduleOptions
	managedBy    string
	managedBySet bool // the flag was given, be it empty
	auth         authFields
	etag         string
	ifMissing    bool
}

func (o *moduleWriteOptions) Flags() []urfave.Flag {
	return command.Concat(o.moduleOptions.Flags(), []urfave.Flag{
		&urfave.StringFlag{Name: "managed-by", Destination: &o.managedBy, Usage: "`WHO` manages the module"},
	}, o.auth.flags())
}

func (o *moduleWriteOptions) check(ctx *urfave.Context) error {
	o.managedBySet = ctx.IsSet("managed-by")
	return fail.First(o.moduleOptions.Check(), o.auth.check())
}

// apply puts the fields that were given into m.
func (o *moduleWriteOptions) apply(s output.Streams, m *hubrest.Module) error {
	if o.managedBySet {
		m.ManagedBy = o.managedBy
	}
	return o.auth.apply(s, &m.Authentication)
}

func moduleCreateCommand(s output.Streams) *urfave.Command {
	var o moduleWriteOptions
	return command.Leaf(&urfave.Command{
		Name:        "create",
		ArgsUsage:   "[DEVICE] [MODULE]",
		Usage:       "register a module of a device and print its identity, with its keys",
		Description: "For example:\n   iotdm service module create --device device-1 --module camera",
		Flags:       command.Concat(o.Flags(), []urfave.Flag{ifMissingFlag(&o.ifMissing)}),
		Action: func(ctx *urfave.Context) error {
			if err := fail.First(o.check(ctx), o.auth.checkNew()); err != nil {
				return err
			}
			return o.do(ctx.Context, s, func(ctx context.Context, client *hubrest.Client) (any, error) {
				m := hubrest.Module{DeviceID: o.device, ModuleID: o.module}
				if err := o.apply(s, &m); err != nil {
					return nil, err
				}
				created, err := client.CreateModule(ctx, m)
				if !o.ifMissing {
					return created, err
				}
				return keepExisting(s, target.Noun(o.About()), "change it with \"iotdm service module update\"", m, created, err, func() (hubrest.Module, error) {
					return client.Module(ctx, o.About())
				})
			})
		},
	})
}

func moduleUpdateCommand(s output.Streams) *urfave.Command {
	var o moduleWriteOptions
	return command.Leaf(&urfave.Command{
		Name:        "update",
		ArgsUsage:   "[DEVICE] [MODULE]",
		Usage:       "change a module identity; what no flag names stays",
		Description: "For example:\n   iotdm service module update --device device-1 --module camera --managed-by ops",
		Flags:       command.Concat(o.Flags(), []urfave.Flag{command.ETagFlag(&o.etag)}),
		Action: func(ctx *urfave.Context) error {
			if err := o.check(ctx); err != nil {
				return err
			}
			if !o.managedBySet && o.auth == (authFields{}) {
				return fail.Usagef("nothing to change; give --managed-by, --primary-key or another flag, see \"iotdm service module update --help\"")
			}
			return o.do(ctx.Context, s, func(ctx context.Context, client *hubrest.Client) (any, error) {
				m, err := client.Module(ctx, o.About())
				if err != nil {
					return nil, err
				}
				if err := o.apply(s, &m); err != nil {
					return nil, err
				}
				if o.etag != "" {
					m.ETag = o.etag
				}
				return client.UpdateModule(ctx, m)
			})
		},
	})
}
