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

func (o *moduleOptions) Flags() []urfave.Flag {
	return command.Concat([]urfave.Flag{
		command.DeviceFlag(&o.device, "the device `ID`"),
		command.ModuleFlag(&o.module, "the module `ID`"),
	}, o.Service.Flags())
}

func (o *moduleOptions) Check() error {
	if err := command.RequireDevice(o.device); err != nil {
		return err
	}
	if o.module == "" {
		return fail.Usagef("--module is missing; name the module of device %s", o.device)
	}
	return o.Output.Check()
}

func (o *moduleOptions) About() hubrest.Target {
	return hubrest.Target{DeviceID: o.device, ModuleID: o.module}
}

func (o *moduleOptions) do(ctx context.Context, s output.Streams, call target.Call) error {
	return o.Call(ctx, s, o.About(), call)
}

func moduleGetCommand(s output.Streams) *urfave.Command {
	var o moduleOptions
	return target.OneCall(s, &urfave.Command{
		Name:      "get",
		ArgsUsage: "[DEVICE] [MODULE]",
		Usage:     "print a module identity, with its keys",
		Description: "A hub of iotdm also says, as .iotdm, when and why the module was last refused and\n" +
			"disconnected. For example:\n" +
			"   iotdm service module get --device device-1 --module camera",
	}, &o, func(ctx context.Context, client *hubrest.Client) (any, error) {
		m, err := client.Module(ctx, o.About())
		return struct {
			hubrest.Module
			Own *hubrest.Connection `json:"iotdm,omitempty"`
		}{m, connectionOf(ctx, client, o.About())}, err
	})
}

func moduleDeleteCommand(s output.Streams) *urfave.Command {
	var o moduleOptions
	var etag string
	var ifExists bool
	return target.OneCall(s, &urfave.Command{
		Name:        "delete",
		ArgsUsage:   "[DEVICE] [MODULE]",
		Usage:       "remove a module identity with its twin",
		Description: "For example:\n   iotdm service module delete --device device-1 --module camera",
	}, &o, func(ctx context.Context, client *hubrest.Client) (any, error) {
		return nil, passMissing(s, ifExists, target.Noun(o.About()), client.DeleteModule(ctx, o.About(), etag))
	}, command.ETagFlag(&etag), ifExistsFlag(&ifExists))
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
	return target.OneCall(s, &urfave.Command{
		Name:        "list",
		ArgsUsage:   "[DEVICE]",
		Usage:       "list the modules of a device",
		Description: "For example:\n   iotdm service module list --device device-1",
	}, &o, func(ctx context.Context, client *hubrest.Client) (any, error) {
		modules, err := client.Modules(ctx, o.device)
		return output.Result{Value: modules, Columns: moduleColumns}, err
	})
}
