package hub

import (
	"errors"

	"github.com/smallstep/truststore"
	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/localhub"
	"github.com/iotdm/iotdm/cli/internal/output"
)

func hubTrustInstallCommand(s output.Streams) *urfave.Command {
	return hubTrustCommand(s, truststore.InstallFile, "This machine now trusts", &urfave.Command{
		Name:  "install",
		Usage: "put the hub's CA into the system's trust store",
		Description: "Asks for the administrator's password where that is needed. Programs that bring their own roots,\n" +
			"such as Python and Node, take them from \"iotdm hub env\" instead. For example:\n" +
			"   iotdm hub trust install",
	})
}

func hubTrustUninstallCommand(s output.Streams) *urfave.Command {
	return hubTrustCommand(s, truststore.UninstallFile, "This machine no longer trusts", &urfave.Command{
		Name:        "uninstall",
		Usage:       "take the hub's CA out of the system's trust store",
		Description: "For example:\n   iotdm hub trust uninstall",
	})
}

func hubTrustCommand(s output.Streams, change func(string, ...truststore.Option) error, done string, c *urfave.Command) *urfave.Command {
	var data string
	c.Flags = []urfave.Flag{localhub.Flag(&data)}
	c.Action = func(*urfave.Context) error {
		info, err := localhub.Read(data)
		if err != nil {
			return err
		}
		err = change(info.CAFile, truststore.WithPrefix("iotdm"))
		switch {
		case errors.Is(err, truststore.ErrNotSupported):
			return fail.Errorf(fail.Failed, "this system's trust store is not known to iotdm; add %s to it by hand", info.CAFile)
		case err != nil:
			return fail.Errorf(fail.Failed, "change the system's trust store: %v", err)
		}
		s.Note("%s the hub's CA %s", done, info.CAFile)
		return nil
	}
	return command.Leaf(c)
}
