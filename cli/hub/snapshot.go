package hub

import (
	"context"
	"fmt"
	"io"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/hubrest"
)

func snapshotCommands(s output.Streams) *urfave.Command {
	return command.Group("snapshot", "put by what a hub under test has, and take it out again",
		snapshotSaveCommand(s), snapshotLoadCommand(s), snapshotListCommand(s), snapshotDeleteCommand(s))
}

// snapshotCommand finishes a command about the snapshot that its argument names.
func snapshotCommand(s output.Streams, c *urfave.Command, call func(ctx context.Context, client *hubrest.Client, name string) (any, error)) *urfave.Command {
	var o target.Service
	c.ArgsUsage = "SNAPSHOT"
	c.Flags = o.Flags()
	c.Action = func(ctx *urfave.Context) error {
		if err := o.Check(); err != nil {
			return err
		}
		return o.Call(ctx.Context, s, target.NoIdentity, func(c context.Context, client *hubrest.Client) (any, error) {
			return call(c, client, ctx.Args().First())
		})
	}
	return command.Leaf(c)
}

func snapshotSaveCommand(s output.Streams) *urfave.Command {
	return snapshotCommand(s, &urfave.Command{
		Name:  "save",
		Usage: "put by what the hub has, under a name",
		Description: "Identities with their keys, twins, messages that wait, jobs, configurations and CA certificates, as\n" +
			"they are at one instant; neither events nor policies. A snapshot of that name is replaced. It is in the\n" +
			"data folder of the hub or, with \"hub run --ephemeral\", in its memory. For example:\n" +
			"   iotdm hub snapshot save ten-devices",
	}, func(ctx context.Context, client *hubrest.Client, name string) (any, error) {
		snapshot, err := client.SaveSnapshot(ctx, name)
		return output.Result{Value: snapshot, Text: func(w io.Writer) error {
			_, err := fmt.Fprintf(w, "Saved snapshot %s (%d bytes)\n", snapshot.Name, snapshot.Bytes)
			return err
		}}, err
	})
}

func snapshotLoadCommand(s output.Streams) *urfave.Command {
	return snapshotCommand(s, &urfave.Command{
		Name:  "load",
		Usage: "make the hub what it was when a snapshot was saved",
		Description: "What the hub has is gone, its events too. Connections of devices end, readers of events stay. Jobs\n" +
			"that had not ended go on. The clock and the faults stay as they are. For example:\n" +
			"   iotdm hub snapshot load ten-devices",
	}, func(ctx context.Context, client *hubrest.Client, name string) (any, error) {
		if err := client.LoadSnapshot(ctx, name); err != nil {
			return nil, err
		}
		s.Note("Loaded snapshot %s", name)
		return nil, nil
	})
}

func snapshotDeleteCommand(s output.Streams) *urfave.Command {
	return snapshotCommand(s, &urfave.Command{
		Name:        "delete",
		Usage:       "delete a snapshot",
		Description: "For example:\n   iotdm hub snapshot delete ten-devices",
	}, func(ctx context.Context, client *hubrest.Client, name string) (any, error) {
		if err := client.DeleteSnapshot(ctx, name); err != nil {
			return nil, err
		}
		s.Note("Deleted snapshot %s", name)
		return nil, nil
	})
}

func snapshotListCommand(s output.Streams) *urfave.Command {
	var o target.Service
	return target.OneCall(s, &urfave.Command{
		Name:        "list",
		Usage:       "list the snapshots of the hub",
		Description: "For example:\n   iotdm hub snapshot list",
	}, &o, func(ctx context.Context, client *hubrest.Client) (any, error) {
		list, err := client.Snapshots(ctx)
		return output.Result{Value: list, Columns: []output.Column{{"NAME", "name"}, {"TAKEN", "taken"}, {"BYTES", "bytes"}}}, err
	})
}
