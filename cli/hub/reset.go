package hub

import (
	"context"
	"errors"
	"fmt"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/localhub"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/hub/node"
)

type hubResetOptions struct {
	data    string
	confirm command.Confirmation
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
			o.confirm.Flag(),
		},
		Action: func(ctx *urfave.Context) error { return resetHub(ctx.Context, s, o) },
	})
}

func resetHub(ctx context.Context, s output.Streams, o hubResetOptions) error {
	dir, err := localhub.Folder(o.data)
	if err != nil {
		return err
	}
	if err := o.confirm.Ask(ctx, s, fmt.Sprintf("Delete the hub in %s with all its devices, twins, keys and certificates", dir)); err != nil {
		return err
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
