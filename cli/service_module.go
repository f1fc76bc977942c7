package cli

import (
	"context"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/hubrest"
)

func moduleCommands(s streams) *urfave.Command {
	return group("module", "module identities",
		moduleCreateCommand(s), moduleGetCommand(s), moduleListCommand(s), moduleUpdateCommand(s), moduleDeleteCommand(s), moduleRenewKeyCommand(s),
		moduleStatusCommand("enable"), moduleStatusCommand("disable"))
}

// moduleStatusCommand is for those who look for what IoT Hub does not have.
func moduleStatusCommand(verb string) *urfave.Command {
	return &urfave.Command{
		Name: verb, Hidden: true, SkipFlagParsing: true, HideHelp: true,
		Action: func(*urfave.Context) error {
			return usagef("a module has no status, it follows its device; see \"iotdm service device %s --help\"", verb)
		},
	}
}

// moduleOptions are those of a command about one module identity.
type moduleOptions struct {
	serviceOptions
	device, module string
}

func (o *moduleOptions) flags() []urfave.Flag {
	return concat([]urfave.Flag{
		deviceFlag(&o.device, "the device `ID`"),
		moduleFlag(&o.module, "the module `ID`"),
	}, o.serviceOptions.flags())
}

func (o *moduleOptions) check() error {
	if err := requireDevice(o.device); err != nil {
		return err
	}
	if o.module == "" {
		return usagef("--module is missing; name the module of device %s", o.device)
	}
	return o.output.check()
}

func (o *moduleOptions) target() hubrest.Target {
	return hubrest.Target{DeviceID: o.device, ModuleID: o.module}
}

func (o *moduleOptions) do(ctx context.Context, s streams, call registryCall) error {
	return o.call(ctx, s, o.target(), call)
}

func moduleGetCommand(s streams) *urfave.Command {
	var o moduleOptions
	return leaf(&urfave.Command{
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

func moduleDeleteCommand(s streams) *urfave.Command {
	var o moduleOptions
	var etag string
	return leaf(&urfave.Command{
		Name:        "delete",
		Usage:       "remove a module identity with its twin",
		Description: "For example:\n   iotdm service module delete --device device-1 --module camera",
		Flags:       concat(o.flags(), []urfave.Flag{etagFlag(&etag)}),
		Action: func(ctx *urfave.Context) error {
			if err := o.check(); err != nil {
				return err
			}
			return o.do(ctx.Context, s, func(ctx context.Context, client *hubrest.Client) (any, error) {
				err := client.DeleteModule(ctx, o.target(), etag)
				if err == nil {
					s.note("Deleted %s", noun(o.target()))
				}
				return nil, err
			})
		},
	})
}

// moduleColumns are what the table of modules shows.
var moduleColumns = []column{
	{"MODULE", "moduleId"},
	{"CONNECTION", "connectionState"},
	{"AUTHENTICATION", "authentication.type"},
	{"MANAGED BY", "managedBy"},
	{"LAST ACTIVITY", "lastActivityTime"},
}

func moduleListCommand(s streams) *urfave.Command {
	var o deviceOptions
	return leaf(&urfave.Command{
		Name:        "list",
		Usage:       "list the modules of a device",
		Description: "For example:\n   iotdm service module list --device device-1",
		Flags:       o.flags(),
		Action: func(ctx *urfave.Context) error {
			if err := o.check(); err != nil {
				return err
			}
			t, client, err := o.open(s)
			if err != nil {
				return err
			}
			defer client.Close()
			modules, err := client.Modules(ctx.Context, o.device)
			if err != nil {
				return t.explain(ctx.Context, err, o.target())
			}
			return o.output.print(s, result{value: modules, columns: moduleColumns})
		},
	})
}
