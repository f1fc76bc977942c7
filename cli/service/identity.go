package service

import (
	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/hubrest"
)

// identityOptions say which device or module a command is about.
type identityOptions struct {
	device, module string
}

func (o *identityOptions) flags() []urfave.Flag {
	return []urfave.Flag{
		command.DeviceFlag(&o.device, "the device `ID`"),
		command.ModuleFlag(&o.module, "the module `ID`, for a module of the device"),
	}
}

func (o *identityOptions) check() error { return command.RequireDevice(o.device) }

func (o *identityOptions) target() hubrest.Target {
	return hubrest.Target{DeviceID: o.device, ModuleID: o.module}
}
