package cli

import (
	"bufio"
	"errors"
	"fmt"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/hub"
)

type hubResetOptions struct {
	data string
	yes  bool
}

func hubResetCommand(s streams) *urfave.Command {
	var o hubResetOptions
	return leaf(&urfave.Command{
		Name:  "reset",
		Usage: "delete the local hub: devices, twins, keys and certificates",
		Description: "The hub has to be stopped. For example:\n" +
			"   iotdm hub reset --yes",
		Flags: []urfave.Flag{
			dataFlag(&o.data),
			&urfave.BoolFlag{Name: "yes", Aliases: []string{"y"}, Destination: &o.yes, DisableDefaultText: true, Usage: "do not ask"},
		},
		Action: func(*urfave.Context) error { return resetHub(s, o) },
	})
}

func resetHub(s streams, o hubResetOptions) error {
	dir, err := dataFolder(o.data)
	if err != nil {
		return err
	}
	if !o.yes {
		if !isTerminal(s.in) {
			return usagef("this deletes the hub in %s; say --yes if that is what you want", dir)
		}
		fmt.Fprintf(s.errOut, "Delete the hub in %s with all its devices, twins, keys and certificates? [y/N] ", dir)
		answer, _ := bufio.NewReader(s.in).ReadString('\n') // no answer is no
		if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
			return failf(statusFailed, "nothing deleted")
		}
	}
	err = hub.Reset(dir)
	if errors.Is(err, hub.ErrNeverRun) {
		return failf(statusNotFound, "%v; there is nothing to delete", err)
	}
	if err != nil {
		return failf(statusFailed, "%v", err)
	}
	s.note("Deleted the hub in %s", dir)
	return nil
}
