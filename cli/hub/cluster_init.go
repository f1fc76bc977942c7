package hub

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/hub/cluster"
	"github.com/iotdm/iotdm/hub/cluster/clusternode"
	"github.com/iotdm/iotdm/hub/cluster/natsevents"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/hub/store"
)

type clusterInitOptions struct {
	cluster  clusterOptions
	from     string
	replicas int
	monitor  string
	events   eventSettings
	output   output.Options
}

// eventSettings are those of the events of a hub of several nodes.
type eventSettings struct {
	partitions int
	age        command.Seconds
	size       int64 // in MiB
}

const (
	maxPartitions  = 32
	leastEventAge  = time.Minute
	leastEventSize = 16 // MiB
	mostEventSize  = 1 << 30
)

func (o *eventSettings) flags() []urfave.Flag {
	return []urfave.Flag{
		&urfave.IntFlag{Name: "event-partitions", Destination: &o.partitions, DefaultText: "4", Usage: "spread events over `N` partitions, which stay"},
		&urfave.GenericFlag{Name: "event-age", Value: &o.age, DefaultText: "24h, or as before", Usage: "keep events for so `LONG`"},
		&urfave.Int64Flag{Name: "event-size", Destination: &o.size, DefaultText: "1024, or as before", Usage: "keep up to so many `MIB` of events on each server, whatever their age"},
	}
}

// settings checks the flags that are set.
func (o *eventSettings) settings(ctx *urfave.Context) (s natsevents.Settings, err error) {
	switch age := time.Duration(o.age); {
	case ctx.IsSet("event-partitions") && (o.partitions < 1 || o.partitions > maxPartitions):
		err = fail.Usagef("--event-partitions %d is not between 1 and %d", o.partitions, maxPartitions)
	case ctx.IsSet("event-age") && age < leastEventAge:
		err = fail.Usagef("--event-age %v is not at least 1m", &o.age)
	case ctx.IsSet("event-size") && (o.size < leastEventSize || o.size > mostEventSize):
		err = fail.Usagef("--event-size %d is not between %d and %d MiB", o.size, leastEventSize, mostEventSize)
	default:
		s = natsevents.Settings{Partitions: o.partitions, MaxAge: age, MaxBytes: o.size << 20}
	}
	return s, err
}

func clusterInitCommand(s output.Streams) *urfave.Command {
	var o clusterInitOptions
	return command.Leaf(&urfave.Command{
		Name:  "init",
		Usage: "make a hub of several nodes in NATS, or set its streams right",
		Description: "Makes what the nodes share: a log of the hub's state, a stream of events, and a place for snapshots. Where\n" +
			"there is a hub already its streams get the settings that they need, and everything in them stays. How\n" +
			"long events are kept, and how many, can be changed so; nodes may run meanwhile.\n\n" +
			"With --from the hub begins with what a stopped hub of one node has in its data folder, its keys and its\n" +
			"CA too, but for events; or with a backup. For example:\n" +
			"   iotdm hub cluster init --cluster nats://127.0.0.1:4222 --replicas 1\n" +
			"   iotdm hub cluster init --cluster nats://nats-1,nats://nats-2,nats://nats-3 --cluster-creds hub.creds --from /var/lib/iotdm\n" +
			"   iotdm hub cluster init --cluster nats://127.0.0.1:4222 --event-age 168h --event-size 20480",
		Flags: command.Concat(o.cluster.flags(), []urfave.Flag{
			&urfave.StringFlag{Name: "from", Destination: &o.from, Usage: "begin with the data `FOLDER` of a stopped hub, or with the FILE of a backup"},
			replicasFlag(&o.replicas),
			monitorFlag(&o.monitor),
		}, o.events.flags(), o.output.Flags()),
		Action: func(ctx *urfave.Context) error {
			if err := o.cluster.check(); err != nil {
				return err
			}
			if err := checkReplicas(o.replicas); err != nil {
				return err
			}
			if err := o.cluster.checkMonitor(o.monitor); err != nil {
				return err
			}
			if err := o.output.Check(); err != nil {
				return err
			}
			events, err := o.events.settings(ctx)
			if err != nil {
				return err
			}
			return clusterInit(ctx.Context, s, o, events)
		},
	})
}

func replicasFlag(n *int) urfave.Flag {
	return &urfave.IntFlag{Name: "replicas", Destination: n, Usage: "keep everything on `N` servers of NATS: 3, or 5, or 1 for trying out (default: 3, or as before)"}
}

func checkReplicas(n int) error {
	if n < 0 || n > 5 {
		return fail.Usagef("--replicas %d: NATS keeps 1 to 5", n)
	}
	return nil
}

// A clusterMade is what init has done.
type clusterMade struct {
	Cluster string `json:"cluster"`
	Existed bool   `json:"existed"`
}

func clusterInit(ctx context.Context, s output.Streams, o clusterInitOptions, events natsevents.Settings) error {
	var from store.Records
	if o.from != "" {
		records, done, err := openRecords(o.from)
		if err != nil {
			return err
		}
		defer done()
		from = records
	}
	if _, err := o.cluster.monitor(ctx, func(err error) { s.Note("%v", err) }); err != nil {
		return err
	}
	existed, err := clusternode.Init(ctx, cluster.InitOptions{NATS: o.cluster.nats(), Copies: o.replicas, From: from, More: clusternode.Events(events)})
	if err != nil {
		return explainCluster(err)
	}
	if info, err := os.Stat(o.from); err == nil && info.IsDir() {
		s.Note("The events of %s stay there: what they are numbered and dated by belongs to its log", o.from)
	}
	typed := o.cluster.typed()
	if o.monitor != "" {
		typed += " --cluster-monitor " + command.ShellWord(o.monitor)
	}
	return o.output.Print(s, output.Result{Value: clusterMade{o.cluster.url, existed}, Text: func(w io.Writer) error {
		if existed {
			_, err := fmt.Fprintf(w, "There is a hub at %s already; its streams have the settings that they need\n", o.cluster.url)
			return err
		}
		_, err := fmt.Fprintf(w, "The hub is made. Start its nodes, each with a name and a data folder of its own:\n  iotdm hub run %s --node NAME --data FOLDER\n", typed)
		return err
	}})
}

// openRecords reads a data folder or a backup.
func openRecords(from string) (records store.Records, done func(), err error) {
	info, err := os.Stat(from)
	if err != nil {
		return nil, nil, fail.Usagef("--from: %v", err)
	}
	if info.IsDir() {
		records, release, err := node.Records(from)
		if err != nil {
			return nil, nil, fail.Errorf(fail.Failed, "--from: %v", err)
		}
		return records, func() { _ = release() }, nil
	}
	f, err := os.Open(from)
	if err != nil {
		return nil, nil, fail.Errorf(fail.Failed, "--from: %v", err)
	}
	return store.ReadBackup(f), func() { _ = f.Close() }, nil
}
