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

func moduleCommands(s output.Streams) *urfave.Command {
	return command.Group("module", "module identities",
		moduleCreateCommand(s), moduleGetCommand(s), moduleListCommand(s), moduleUpdateCommand(s), moduleDeleteCommand(s), moduleRenewKeyCommand(s),
		moduleStatusCommand("enable"), moduleStatusCommand("disable"))
}

// moduleStatusCommand is for those who look for what IoT Hub does not have.
func moduleStatusCommand(verb string) *urfave.Command {
	return &urfave.Command{
		Name: verb, Hidden: true, SkipFlagParsing: true, HideHelp: true,
		Action: func(*urfave.Context) error {
			return fail.Usagef("a module has no status, it follows its device; see \"iotdm service device %s --help\"", verb)
		},
	}
}

// moduleOptions are those of a command about one module identity.
type moduleOptions struct {
	target.Service
	device, module string
}

func (o *moduleOptions) flags() []urfave.Flag {
	return command.Concat([]urfave.Flag{
		command.DeviceFlag(&o.device, "the device `ID`"),
		command.ModuleFlag(&o.module, "the module `ID`"),
	}, o.Service.ServiceFlags())
}

func (o *moduleOptions) check() error {
	if err := command.RequireDevice(o.device); err != nil {
		return err
	}
	if o.module == "" {
		return fail.Usagef("--module is missing; name the module of device %s", o.device)
	}
	return o.Output.Check()
}

func (o *moduleOptions) target() hubrest.Target {
	return hubrest.Target{DeviceID: o.device, ModuleID: o.module}
}

func (o *moduleOptions) do(ctx context.Context, s output.Streams, call target.RegistryCall) error {
	return o.Call(ctx, s, o.target(), call)
}

func moduleGetCommand(s output.Streams) *urfave.Command {
	var o moduleOptions
	return command.Leaf(&urfave.Command{
		Name:        "get",
		Usage:       "print a module identity, with its keys",
		Description: "For example:\n   iotdm service module get --device device-1 --module camera",
		Flags:       o.flags(),
		Action: func(ctx *urfave.Context) error {
			if err := o.check(); err != nil {
				return err
			}
			return o.do(ctx.Context, s, func(ctx context.Context, client *hubrest.Client) (any, error) {
				return client.Module(ctx, o.target())
			})
		},
	})
}

func moduleDeleteCommand(s output.Streams) *urfave.Command {
	var o moduleOptions
	var etag string
	return command.Leaf(&urfave.Command{
		Name:        "delete",
		Usage:       "remove a module identity with its twin",
		Description: "For example:\n   iotdm service module delete --device device-1 --module camera",
		Flags:       command.Concat(o.flags(), []urfave.Flag{command.ETagFlag(&etag)}),
		Action: func(ctx *urfave.Context) error {
			if err := o.check(); err != nil {
				return err
			}
			return o.do(ctx.Context, s, func(ctx context.Context, client *hubrest.Client) (any, error) {
				err := client.DeleteModule(ctx, o.target(), etag)
				if err == nil {
					s.Note("Deleted %s", target.Noun(o.target()))
				}
				return nil, err
			})
		},
	})
}

// moduleColumns are what the table of modules shows.
var moduleColumns = []output.Column{
	{"MODULE", "moduleId"},
	{"CONNECTION", "connectionState"},
	{"AUTHENTICATION", "authentication.type"},
	{"MANAGED BY", "managedBy"},
	{"LAST ACTIVITY", "lastActivityTime"},
}

func moduleListCommand(s output.Streams) *urfave.Command {
	var o deviceOptions
	return command.Leaf(&urfave.Command{
		Name:        "list",
		Usage:       "list the modules of a device",
		Description: "For example:\n   iotdm service module list --device device-1",
		Flags:       o.flags(),
		Action: func(ctx *urfave.Context) error {
			if err := o.check(); err != nil {
				return err
			}
			t, client, err := o.Open(s)
			if err != nil {
				return err
			}
			defer client.Close()
			modules, err := client.Modules(ctx.Context, o.device)
			if err != nil {
				return t.Explain(ctx.Context, err, o.target())
			}
			return o.Output.Print(s, output.Result{Value: modules, Columns: moduleColumns})
		},
	})
}
