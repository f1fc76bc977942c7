package hub

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/hub/cluster"
	"github.com/iotdm/iotdm/hub/cluster/natsconn"
	"github.com/iotdm/iotdm/hub/cluster/natsevents"
	"github.com/iotdm/iotdm/internal/phrase"
)

// clusterReader finishes a command that follows the log for a moment.
func clusterReader(s output.Streams, c *urfave.Command, o *clusterOptions, more []urfave.Flag, check func() error, call func(ctx context.Context, c *cluster.Cluster) (output.Result, error)) *urfave.Command {
	var out output.Options
	c.Flags = command.Concat(o.flags(), more, out.Flags())
	c.Action = func(ctx *urfave.Context) error {
		if err := o.check(); err != nil {
			return err
		}
		if err := out.Check(); err != nil {
			return err
		}
		if err := check(); err != nil {
			return err
		}
		// A reader is no member, and needs no name.
		h, err := cluster.Open(ctx.Context, cluster.Options{NATS: o.nats(), Name: "reader"})
		if err != nil {
			return explainCluster(err)
		}
		defer h.Close()
		if err := h.Store().Barrier(ctx.Context); err != nil {
			return explainCluster(err)
		}
		result, err := call(ctx.Context, h)
		if err != nil {
			return explainCluster(err)
		}
		return out.Print(s, result)
	}
	return command.Leaf(c)
}

// A clusterState is what status prints.
type clusterState struct {
	Log     string          `json:"log"` // its id
	First   uint64          `json:"first"`
	End     uint64          `json:"end"`
	Bytes   uint64          `json:"bytes"`
	Hash    string          `json:"hash"`
	Servers []clusterServer `json:"servers"`
	Nodes   []clusterNode   `json:"nodes"`
	Events  clusterEvents   `json:"events"`
}

// clusterEvents are how events are kept.
type clusterEvents struct {
	Partitions int   `json:"partitions"`
	Age        int64 `json:"ageInSeconds"`
	Bytes      int64 `json:"maxBytes"` // on each server; -1: no bound
}

type clusterServer struct {
	Name    string `json:"name"`
	Leads   bool   `json:"leads"`
	Current bool   `json:"current"`
	Away    bool   `json:"away"` // it does not follow at all
	Lag     uint64 `json:"lag"`

	heard time.Duration // how long ago, if it is away; 0: that is not known

	// What it says itself, if it was asked.
	Version    string `json:"version,omitempty"`
	SyncAlways *bool  `json:"syncAlways,omitempty"`
}

type clusterNode struct {
	Name   string    `json:"name"`
	Epoch  uint64    `json:"epoch"`
	Leads  bool      `json:"leads"`
	Host   string    `json:"host"`
	PID    int       `json:"pid"`
	Joined time.Time `json:"joined"`

	Answers bool `json:"answers"`
}

func clusterStatusCommand(s output.Streams) *urfave.Command {
	var o clusterOptions
	var monitor string
	return clusterReader(s, &urfave.Command{
		Name:  "status",
		Usage: "show the nodes of a hub, and how NATS keeps its log",
		Description: "A node that has died does not answer, and is listed until the others have missed it, for about 9 s. One that\n" +
			"is listed for longer hangs, or is the only one: start it again. For example:\n" +
			"   iotdm hub cluster status --cluster nats://127.0.0.1:4222 --cluster-monitor http://127.0.0.1:8222",
	}, &o, []urfave.Flag{monitorFlag(&monitor)}, func() error { return o.checkMonitor(monitor) }, func(ctx context.Context, c *cluster.Cluster) (output.Result, error) {
		state, err := c.State(ctx)
		if err != nil {
			return output.Result{}, err
		}
		events, err := natsevents.Check(ctx, c.Conn())
		if err != nil {
			return output.Result{}, err
		}
		r := clusterState{Log: c.LogID(), First: state.Log.First, End: state.Log.End, Bytes: state.Log.Bytes, Hash: state.Hash, Servers: []clusterServer{}, Nodes: []clusterNode{}}
		r.Events = clusterEvents{events.Partitions, int64(events.MaxAge / time.Second), events.MaxBytes}
		if state.Log.Leader != "" {
			r.Servers = append(r.Servers, clusterServer{Name: state.Log.Leader, Leads: true, Current: true})
		}
		for _, copied := range state.Log.Copies {
			away := copied.Away()
			r.Servers = append(r.Servers, clusterServer{Name: copied.Server, Current: copied.Current && !away, Away: away, Lag: copied.Lag, heard: copied.Heard})
		}
		for _, m := range state.Members {
			r.Nodes = append(r.Nodes, clusterNode{Name: m.Name, Epoch: m.Epoch, Leads: m.Epoch == state.Leader, Host: m.About.Host, PID: m.About.PID, Joined: m.Joined, Answers: m.Answers})
		}
		asked, wrong := o.monitor(ctx, func(err error) { s.Note("%v", err) })
		for _, a := range asked {
			r.add(a)
		}
		if wrong != nil {
			s.Note("%v", wrong)
		}
		return output.Result{Value: r, Text: r.print}, nil
	})
}

// add adds what a server says itself. One that stands alone is in no list.
func (r *clusterState) add(asked natsconn.Server) {
	i := slices.IndexFunc(r.Servers, func(s clusterServer) bool { return s.Name == asked.Name })
	if i < 0 && asked.Servers == 1 {
		i = len(r.Servers)
		r.Servers = append(r.Servers, clusterServer{Name: asked.Name, Leads: true, Current: true})
	}
	if i >= 0 {
		r.Servers[i].Version, r.Servers[i].SyncAlways = asked.Version, &asked.SyncAlways
	}
}

func (r clusterState) print(w io.Writer) error {
	lines := []string{fmt.Sprintf("The log has positions %d to %d, %d bytes", r.First, r.End-1, r.Bytes)}
	for _, s := range r.Servers {
		how := "follows"
		switch {
		case s.Leads:
			how = "leads"
		case s.Away && s.heard >= time.Second:
			how = fmt.Sprintf("is away, last heard of %v ago", s.heard.Round(time.Second))
		case s.Away:
			how = "is away"
		case !s.Current:
			how = fmt.Sprintf("is behind by %d", s.Lag)
		}
		if s.SyncAlways != nil {
			how += fmt.Sprintf(", nats-server %s, %s", output.OneLine(s.Version), phrase.Choose(*s.SyncAlways, "syncs always", "syncs now and then only"))
		}
		lines = append(lines, fmt.Sprintf("  server %-20s %s", output.OneLine(s.Name), how))
	}
	age := command.Seconds(time.Duration(r.Events.Age) * time.Second)
	size := ""
	if r.Events.Bytes > 0 {
		size = fmt.Sprintf(", up to %d MiB on each server", r.Events.Bytes>>20)
	}
	lines = append(lines, fmt.Sprintf("Events have %s, and are kept for %v%s", output.Count(r.Events.Partitions, "partition"), &age, size))
	if len(r.Nodes) == 0 {
		lines = append(lines, "No node is a member")
	}
	for _, n := range r.Nodes {
		lead := ""
		if n.Leads {
			lead = ", leads"
		}
		if !n.Answers {
			lead += ", does not answer"
		}
		lines = append(lines, fmt.Sprintf("  node %-22s on %s, process %d, since %s%s", output.OneLine(n.Name), output.OneLine(n.Host), n.PID, n.Joined.Local().Format(time.DateTime), lead))
	}
	for _, l := range lines {
		if _, err := fmt.Fprintln(w, l); err != nil {
			return err
		}
	}
	return nil
}
