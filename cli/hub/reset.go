package hub

import (
	"bufio"
	"errors"
	"fmt"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/localhub"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/hub/node"
)

type hubResetOptions struct {
	data string
	yes  bool
}

func hubResetCommand(s output.Streams) *urfave.Command {
	var o hubResetOptions
	return command.Leaf(&urfave.Command{
		Name:  "reset",
		Usage: "delete the local hub: devices, twins, keys and certificates",
		Description: "The hub has to be stopped. For example:\n" +
			"   iotdm hub reset --yes",
		Flags: []urfave.Flag{
			localhub.Flag(&o.data),
			&urfave.BoolFlag{Name: "yes", Aliases: []string{"y"}, Destination: &o.yes, DisableDefaultText: true, Usage: "do not ask"},
		},
		Action: func(*urfave.Context) error { return resetHub(s, o) },
	})
}

func resetHub(s output.Streams, o hubResetOptions) error {
	dir, err := localhub.Folder(o.data)
	if err != nil {
		return err
	}
	if !o.yes {
		if !output.IsTerminal(s.In) {
			return fail.Usagef("this deletes the hub in %s; say --yes if that is what you want", dir)
		}
		fmt.Fprintf(s.ErrOut, "Delete the hub in %s with all its devices, twins, keys and certificates? [y/N] ", dir)
		answer, _ := bufio.NewReader(s.In).ReadString('\n') // no answer is no
		if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
			return fail.Errorf(fail.Failed, "nothing deleted")
		}
	}
	err = node.Reset(dir)
	if errors.Is(err, node.ErrNeverRun) {
		return fail.Errorf(fail.NotFound, "%v; there is nothing to delete", err)
	}
	if err != nil {
		return fail.Errorf(fail.Failed, "%v", err)
	}
	s.Note("Deleted the hub in %s", dir)
	return nil
}
