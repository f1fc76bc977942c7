package cli

import (
	urfave "github.com/urfave/cli/v2"
)

func hubCommands(s streams) *urfave.Command {
	return group("hub", "run and use a hub of your own",
		hubRunCommand(s), hubStatusCommand(s), hubEnvCommand(s), hubConnectionStringCommand(s), hubResetCommand(s), hubEventsCommand(s),
		caCertCommands(s),
		group("trust", "make this machine trust the local hub's certificates", hubTrustInstallCommand(s), hubTrustUninstallCommand(s)),
	)
}
