package hub

import (
	"fmt"
	"io"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/localhub"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/hub/cluster"
	"github.com/iotdm/iotdm/hub/cluster/clusternode"
	"github.com/iotdm/iotdm/hub/node"
)

// A clusterRecovered is what recover has done.
type clusterRecovered struct {
	Position uint64 `json:"position"` // in the old log
}

func clusterRecoverCommand(s output.Streams) *urfave.Command {
	var o clusterOptions
	var data string
	var replicas int
	var out output.Options
	return command.Leaf(&urfave.Command{
		Name:  "recover",
		Usage: "go on with what one node has, when NATS has lost the log",
		Description: "Stop all nodes before. The log must have lost something: NATS had its files damaged, or removed. Take the\n" +
			"node that has read the most: each node says in its last line up to where it has read. Then remove the\n" +
			"data folders of the others, and start all of them. For example:\n" +
			"   iotdm hub cluster recover --cluster nats://127.0.0.1:4222 --data /var/lib/iotdm",
		Flags: command.Concat(o.flags(), []urfave.Flag{
			localhub.Flag(&data),
			replicasFlag(&replicas),
		}, out.Flags()),
		Action: func(ctx *urfave.Context) error {
			if err := o.check(); err != nil {
				return err
			}
			if err := checkReplicas(replicas); err != nil {
				return err
			}
			if err := out.Check(); err != nil {
				return err
			}
			dir, err := localhub.Folder(data)
			if err != nil {
				return err
			}
			pos, err := clusternode.Recover(ctx.Context, cluster.InitOptions{NATS: o.nats(), Copies: replicas}, node.Folder(dir))
			if err != nil {
				return explainCluster(err)
			}
			return out.Print(s, output.Result{Value: clusterRecovered{pos}, Text: func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "The hub goes on with what %s has read of the old log, up to position %d; remove the data folders of the other nodes\n", dir, pos)
				return err
			}})
		},
	})
}
