package cli

import (
	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/hubrest"
)

func serviceCommands(s streams) *urfave.Command {
	return group("service", "operate devices: reboot, methods, twins, identities, queries",
		serviceRebootCommand(s),
		c2dCommands(s),
		group("method", "direct methods", methodInvokeCommand(s)),
		group("twin", "device and module twins", twinGetCommand(s), twinPatchCommand(s), twinReplaceCommand(s), twinEditCommand(s), twinWatchCommand(s)),
		group("device", "device identities",
			deviceCreateCommand(s), deviceGetCommand(s), deviceListCommand(s), deviceUpdateCommand(s), deviceDeleteCommand(s),
			deviceEnableCommand(s), deviceDisableCommand(s), deviceRenewKeyCommand(s),
			deviceImportCommand(s), deviceExportCommand(s)),
		moduleCommands(s),
		queryCommand(s),
		jobCommands(s),
		configurationCommands(s),
		statsCommand(s),
	)
}

// identityOptions say which device or module a command is about.
type identityOptions struct {
	device, module string
}

func (o *identityOptions) flags() []urfave.Flag {
	return []urfave.Flag{
		deviceFlag(&o.device, "the device `ID`"),
		moduleFlag(&o.module, "the module `ID`, for a module of the device"),
	}
}

func (o *identityOptions) check() error { return requireDevice(o.device) }

func (o *identityOptions) target() hubrest.Target {
	return hubrest.Target{DeviceID: o.device, ModuleID: o.module}
}
