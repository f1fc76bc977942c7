// Package service has the commands of "iotdm service", with which operators and
// their scripts look after devices: identities, twins, methods, messages, jobs,
// configurations, queries; and which devices may register.
//
// A command that makes one call and prints what it returns is made by
// [target.OneCall].
package service

import (
	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/output"
)

// Commands returns the group "service".
func Commands(s output.Streams) *urfave.Command {
	return command.Group("service", "operate devices: reboot, methods, twins, identities, queries",
		rebootCommand(s),
		updateCommand(s),
		c2dCommands(s),
		eventsCommand(s),
		command.Group("method", "direct methods", methodInvokeCommand(s)),
		command.Group("twin", "device and module twins", twinGetCommand(s), twinPatchCommand(s), twinReplaceCommand(s), twinEditCommand(s), twinWatchCommand(s)),
		command.Group("device", "device identities",
			deviceCreateCommand(s), deviceGetCommand(s), deviceListCommand(s), deviceUpdateCommand(s), deviceDeleteCommand(s),
			deviceEnableCommand(s), deviceDisableCommand(s), deviceRenewKeyCommand(s),
			deviceImportCommand(s), deviceExportCommand(s)),
		moduleCommands(s),
		queryCommand(s),
		jobCommands(s),
		configurationCommands(s),
		enrollmentCommands(s, individual),
		enrollmentCommands(s, group),
		registrationCommands(s),
		statsCommand(s),
	)
}
