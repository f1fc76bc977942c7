// Package hub has the commands of "iotdm hub": to run a hub of one's own, and to
// use it.
package hub

import (
	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/output"
)

// Commands returns the group "hub".
func Commands(s output.Streams) *urfave.Command {
	return command.Group("hub", "run and use a hub of your own",
		hubRunCommand(s), hubStatusCommand(s), hubEnvCommand(s), hubConnectionStringCommand(s), hubMQTTSettingsCommand(s), hubResetCommand(s), snapshotCommands(s), clockCommands(s), hubCheckCommand(s), hubEventsCommand(s),
		clusterCommands(s), faultCommands(s), journalCommand(s), caCertCommands(s),
		command.Group("trust", "make this machine trust the local hub's certificates", hubTrustInstallCommand(s), hubTrustUninstallCommand(s)),
	)
}
