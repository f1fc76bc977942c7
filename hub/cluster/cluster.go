// Package cluster makes a process one node of a hub that has several, on NATS
// JetStream: it follows the log of the hub's state, joins and leaves, tells which
// of the others are there, and asks them.
//
// A Cluster lasts as long as the process. A Membership is one time that the node
// takes part, which ends when the others have missed it for too long, or when it has
// missed NATS for too long: then nothing that it still serves counts any more, and
// it may join again.
package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/iotdm/iotdm/hub/cluster/natsconn"
	"github.com/iotdm/iotdm/hub/cluster/natslog"
	"github.com/iotdm/iotdm/hub/store"
	"github.com/iotdm/iotdm/internal/wait"
)

// Options configure Open.
type Options struct {
	NATS natsconn.Options // its Name may be empty

	// Name is the node's, which no other one has. It stays the same through restarts.
	Name string

	// Dir is the folder of the node's copy of the state. Empty is memory.
	Dir string

	// Instance tells apart two nodes that were given the same name: it is stored with
	// the node, and no two have the same.
	Instance string

	// Waiting is told why there is no hub in NATS yet: Open waits then until Init has
	// made one, or ctx ends. With nil it fails.
	Waiting func(why error)

	Logger *slog.Logger // nil discards
}

// About is what a node says about itself.
type About struct {
	Instance string
	Host     string // of the machine
	PID      int
}

// Errors of Open and Join, besides those of natsconn.Connect, natslog.Open and
// store.OpenReplica.
var (
	// ErrNameInUse means that another node has the name.
	ErrNameInUse = errors.New("the node's name is in use")

	// ErrClock means that the clocks of this machine and of NATS are apart.
	ErrClock = errors.New("clocks are apart")
)

// A Cluster is this node's view of it. Its methods may be called concurrently.
type Cluster struct {
	opt       Options
	log       *slog.Logger
	conn      *natsconn.Conn
	groups    *natslog.Log
	snapshots *natslog.Snapshots
	replica   *store.Replica
	timing    timing
}

// openPatience is for how long Open tries to reach NATS and its streams.
const openPatience = 15 * time.Second

// Open connects to NATS and opens this node's copy of the state, which follows the
// log from then on. The node is no member before Join.
func Open(ctx context.Context, opt Options) (*Cluster, error) {
	c := &Cluster{opt: opt, log: cmp.Or(opt.Logger, slog.New(slog.DiscardHandler)), timing: usual}
	opt.NATS.Name = cmp.Or(opt.NATS.Name, "iotdm hub "+opt.Name)
	opt.NATS.Logger = c.log
	connecting, cancel := context.WithTimeout(ctx, openPatience)
	defer cancel()
	var err error
	if c.conn, err = natsconn.Connect(connecting, opt.NATS); err != nil {
		return nil, err
	}
	for told := false; ; told = true {
		if err = c.open(ctx); err == nil {
			return c, nil
		}
		if !told && errors.Is(err, natsconn.ErrNoHub) {
			err = c.checkCopy(err)
		}
		if opt.Waiting == nil || !errors.Is(err, natsconn.ErrNoHub) && !errors.Is(err, store.ErrNoState) {
			break
		}
		if !told {
			opt.Waiting(err)
		}
		if wait.For(ctx, time.Second) != nil {
			break
		}
	}
	c.conn.Close()
	return nil, err
}

func (c *Cluster) open(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, openPatience)
	defer cancel()
	err = natsconn.Retry(ctx, func(ctx context.Context) error {
		c.groups, c.snapshots, err = natslog.Open(ctx, c.conn)
		return err
	})
	if err != nil {
		return err
	}
	host, _ := os.Hostname()
	about, err := json.Marshal(About{Instance: c.opt.Instance, Host: host, PID: os.Getpid()})
	if err != nil {
		return err
	}
	c.replica, err = store.OpenReplica(store.ReplicaOptions{
		Dir: c.opt.Dir, Log: c.groups, Snapshots: c.snapshots, Name: c.opt.Name, About: about, Logger: c.log,
	})
	return c.explain(err)
}

// checkCopy returns noHub, unless the folder of the node's copy shows that this NATS never
// gets a hub that the node can follow.
func (c *Cluster) checkCopy(noHub error) error {
	if c.opt.Dir == "" {
		return noHub
	}
	copied, err := store.OpenCopy(c.opt.Dir)
	switch {
	case err == nil:
		err = fmt.Errorf("%w: this node has read a hub, and NATS at %s, if --cluster is right, has none", store.ErrLogWentBack, c.conn.URL())
		return errors.Join(c.explain(err), copied.Close())
	case errors.Is(err, store.ErrReplicated):
		return c.explain(err)
	}
	return noHub
}

// explain adds to an error of the replica what to do.
func (c *Cluster) explain(err error) error {
	remedy := ""
	switch {
	case err == nil:
		return nil
	case errors.Is(err, store.ErrNoState):
		remedy = "make it with: " + c.conn.Command("init")
	case errors.Is(err, store.ErrOtherLog):
		remedy = fmt.Sprintf("if this node shall belong to the hub at %s, remove its copy %s, which that hub does not need; else correct --cluster or --data", c.conn.URL(), c.opt.Dir)
	case errors.Is(err, store.ErrNewerLog):
		remedy = "update iotdm on this node"
	case errors.Is(err, store.ErrLogWentBack):
		remedy = "see that all servers of NATS run with all their files; if they are lost, go on from the copy of the node that has read the most with: " + c.conn.Command("recover") + " --data FOLDER"
	case errors.Is(err, store.ErrDamaged):
		remedy = fmt.Sprintf("remove this node's copy %s, which the node makes anew from the others' log", c.opt.Dir)
	case errors.Is(err, store.ErrReplicated):
		remedy = "give the node a data folder of its own with --data; what that one holds comes into a cluster by: " + c.conn.Command("init") + " --from FOLDER"
	case errors.Is(err, store.ErrNoLog):
		remedy = "see that more than half of the servers of NATS run"
	default:
		return err
	}
	return fmt.Errorf("%w; %s", err, remedy)
}

// Store returns this node's copy of the state. It takes changes while the node is a
// member.
func (c *Cluster) Store() *store.DB { return c.replica.DB() }

// LogID returns what the hub's log is called, which no other is.
func (c *Cluster) LogID() string { return c.replica.LogID() }

// Backup writes what the hub has, as this node knows it; see store.ReadBackup.
func (c *Cluster) Backup(to io.Writer) error { return c.replica.Backup(to) }

// Conn returns the connection to NATS.
func (c *Cluster) Conn() *natsconn.Conn { return c.conn }

// Close ends following, and the connection.
func (c *Cluster) Close() error {
	err := c.replica.DB().Close()
	c.conn.Close()
	return err
}

// Join makes the node a member, when its copy is as new as the log. It waits while
// the log does not answer, until ctx ends.
func (c *Cluster) Join(ctx context.Context) (*Membership, error) {
	if err := c.checkName(ctx); err != nil {
		return nil, err
	}
	epoch, err := c.replica.Join(ctx)
	if err != nil {
		return nil, c.explain(err)
	}
	m, err := c.newMembership(epoch)
	if err != nil {
		return nil, errors.Join(err, c.replica.Leave(ctx))
	}
	if err := c.checkClock(ctx); err != nil {
		return nil, errors.Join(err, m.Leave(ctx))
	}
	c.log.Info("this node is a member", "name", c.opt.Name, "epoch", epoch, "members", len(c.replica.Members()))
	return m, nil
}

// checkName refuses a name that another node has. One that does not answer, as after
// its machine has died, is replaced; it hears of that in the log.
func (c *Cluster) checkName(ctx context.Context) error {
	if err := c.replica.DB().Barrier(ctx); err != nil {
		return c.explain(err)
	}
	for _, m := range c.replica.Members() {
		var about About
		if err := json.Unmarshal(m.About, &about); err != nil {
			about = About{Host: "unknown"}
		}
		if m.Name != c.opt.Name || about.Instance == c.opt.Instance {
			continue
		}
		err := c.ping(ctx, m.Epoch)
		if err == nil {
			return fmt.Errorf("%w: %q is a running node on %s (process %d); give this one another name with --node", ErrNameInUse, m.Name, about.Host, about.PID)
		}
		if !errors.Is(err, nats.ErrNoResponders) {
			c.log.Warn("a node of the same name does not answer, and is replaced", "name", m.Name, "host", about.Host, "err", err)
		}
	}
	return nil
}

// ping asks a member whether it is there.
func (c *Cluster) ping(ctx context.Context, epoch uint64) error {
	const patience = 2 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err := c.conn.RequestWithContext(ctx, subjectOf(epoch, pingVerb), nil)
	return err
}

// maxApart is how far clocks may be apart. Tokens and messages expire by them.
const maxApart = 5 * time.Second

// checkClock compares this machine's clock with that by which NATS marks the log.
func (c *Cluster) checkClock(ctx context.Context) error {
	before := time.Now()
	if err := c.replica.Beat(ctx); err != nil {
		return c.explain(err)
	}
	after := time.Now()
	_, _, at := c.replica.Applied()
	if apart := apart(before, after, at); apart != 0 {
		which := "ahead of"
		if apart < 0 {
			which = "behind"
		}
		return fmt.Errorf("%w: that of this machine is %v %s that of the server of NATS; have both kept right by NTP", ErrClock, apart.Abs().Round(time.Second), which)
	}
	return nil
}

// apart returns how far a clock that showed before and after is ahead of one that
// showed at in between, if that is too far, and else 0.
func apart(before, after, at time.Time) time.Duration {
	switch {
	case before.Sub(at) > maxApart:
		return before.Sub(at)
	case at.Sub(after) > maxApart:
		return -at.Sub(after)
	}
	return 0
}

// State is what a node knows of the cluster.
type State struct {
	Members []Member
	Leader  uint64 // an epoch; 0: none
	Applied uint64 // the position up to which this node has the log
	Hash    string // of the log up to there
	Log     natslog.Status
}

// Member is a member.
type Member struct {
	store.Member
	About   About
	Answers bool // when it was asked just now; one that has died is a member until it is missed
}

// State asks for it. It waits a moment for members that do not answer.
func (c *Cluster) State(ctx context.Context) (State, error) {
	if err := c.replica.DB().Barrier(ctx); err != nil {
		return State{}, c.explain(err)
	}
	status, err := c.groups.Status(ctx)
	if err != nil {
		return State{}, err
	}
	pos, hash, _ := c.replica.Applied()
	s := State{Leader: c.replica.Leader(), Applied: pos, Hash: fmt.Sprintf("%x", hash), Log: status}
	var asking sync.WaitGroup
	members := c.replica.Members()
	s.Members = make([]Member, len(members))
	for i, m := range members {
		member := &s.Members[i]
		member.Member = m
		_ = json.Unmarshal(m.About, &member.About)
		asking.Go(func() { member.Answers = c.ping(ctx, m.Epoch) == nil })
	}
	asking.Wait()
	slices.SortFunc(s.Members, func(a, b Member) int { return cmp.Compare(a.Epoch, b.Epoch) })
	return s, nil
}

// pause waits, unless ctx ends.
func pause(ctx context.Context, d time.Duration) bool { return wait.For(ctx, d) == nil }
