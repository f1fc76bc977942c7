package cli

import (
	"errors"

	"github.com/smallstep/truststore"
	urfave "github.com/urfave/cli/v2"
)

func hubTrustInstallCommand(s streams) *urfave.Command {
	return hubTrustCommand(s, truststore.InstallFile, "This machine now trusts", &urfave.Command{
		Name:  "install",
		Usage: "put the hub's CA into the system's trust store",
		Description: "Asks for the administrator's password where that is needed. Programs that bring their own roots,\n" +
			"such as Python and Node, take them from \"iotdm hub env\" instead. For example:\n" +
			"   iotdm hub trust install",
	})
}

func hubTrustUninstallCommand(s streams) *urfave.Command {
	return hubTrustCommand(s, truststore.UninstallFile, "This machine no longer trusts", &urfave.Command{
		Name:        "uninstall",
		Usage:       "take the hub's CA out of the system's trust store",
		Description: "For example:\n   iotdm hub trust uninstall",
	})
}

func hubTrustCommand(s streams, change func(string, ...truststore.Option) error, done string, c *urfave.Command) *urfave.Command {
	var data string
	c.Flags = []urfave.Flag{dataFlag(&data)}
	c.Action = func(*urfave.Context) error {
		info, err := readLocalHub(data)
		if err != nil {
			return err
		}
		err = change(info.CAFile, truststore.WithPrefix("iotdm"))
		switch {
		case errors.Is(err, truststore.ErrNotSupported):
			return failf(statusFailed, "this system's trust store is not known to iotdm; add %s to it by hand", info.CAFile)
		case err != nil:
			return failf(statusFailed, "change the system's trust store: %v", err)
		}
		s.note("%s the hub's CA %s", done, info.CAFile)
		return nil
	}
	return leaf(c)
}
