// Package device has the commands of "iotdm device", which are a device: the
// agent, a fleet of simulated devices, and those that do one thing and end.
package device

import (
	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/output"
)

// Commands returns the group "device".
func Commands(s output.Streams) *urfave.Command {
	return command.Group("device", "be a device: answer methods, report properties, send telemetry",
		deviceRunCommand(s),
		command.Group("twin", "the device's own view of its twin", deviceTwinGetCommand(s), deviceTwinReportCommand(s), deviceTwinWatchCommand(s)),
		deviceSendCommand(s),
		deviceMQTTSettingsCommand(s),
	)
}
