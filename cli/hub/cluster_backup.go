package hub

import (
	"context"
	"fmt"
	"io"
	"os"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/hub/cluster"
	"github.com/iotdm/iotdm/hub/node"
)

// A clusterSaved is what backup and export print.
type clusterSaved struct {
	To string `json:"to"`
}

func clusterBackupCommand(s output.Streams) *urfave.Command {
	var o clusterOptions
	var to string
	return clusterReader(s, &urfave.Command{
		Name:  "backup",
		Usage: "write what a hub of several nodes has into a file",
		Description: "Everything but events, as it is at one instant, with all keys: keep the file as safe as these. A hub\n" +
			"begins with it by \"iotdm hub cluster init --from FILE\". For example:\n" +
			"   iotdm hub cluster backup --cluster nats://127.0.0.1:4222 --to hub.backup",
	}, &o, []urfave.Flag{&urfave.StringFlag{Name: "to", Destination: &to, Usage: "the new `FILE`"}}, func() error {
		if to == "" {
			return fail.Usagef("--to is missing: say which file to write")
		}
		return nil
	}, func(_ context.Context, c *cluster.Cluster) (output.Result, error) {
		if err := writeBackup(c, to); err != nil {
			return output.Result{}, err
		}
		return output.Result{Value: clusterSaved{to}, Text: func(w io.Writer) error {
			_, err := fmt.Fprintf(w, "What the hub has is in %s\n", to)
			return err
		}}, nil
	})
}

// writeBackup leaves no half of a file.
func writeBackup(c *cluster.Cluster, to string) (err error) {
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = c.Backup(f)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		_ = os.Remove(to)
	}
	return err
}

func clusterExportCommand(s output.Streams) *urfave.Command {
	var o clusterOptions
	var to string
	return clusterReader(s, &urfave.Command{
		Name:  "export",
		Usage: "make a hub of one node of what a hub of several has",
		Description: "The folder gets everything but events, with the same keys and the same CA; \"iotdm hub run --data FOLDER\"\n" +
			"then runs it. For example:\n" +
			"   iotdm hub cluster export --cluster nats://127.0.0.1:4222 --to single",
	}, &o, []urfave.Flag{&urfave.StringFlag{Name: "to", Destination: &to, Usage: "the new data `FOLDER`"}}, func() error {
		if to == "" {
			return fail.Usagef("--to is missing: say which folder to make")
		}
		return nil
	}, func(_ context.Context, c *cluster.Cluster) (output.Result, error) {
		if err := node.WriteRecords(to, c.Store().Records); err != nil {
			return output.Result{}, err
		}
		return output.Result{Value: clusterSaved{to}, Text: func(w io.Writer) error {
			_, err := fmt.Fprintf(w, "What the hub has is in the data folder %s\n", to)
			return err
		}}, nil
	})
}
