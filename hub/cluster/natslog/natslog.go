// Package natslog keeps the log of a replicated store, and its snapshots, in NATS
// JetStream.
//
// The log is one stream with one subject: a message is a group, and its number in
// the stream the group's position. What the stream has stored it publishes once
// more for whoever follows. Messages may be missing there, which their numbers show,
// and are then read from the stream: any server that has a copy answers.
package natslog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/iotdm/iotdm/hub/cluster/natsconn"
	"github.com/iotdm/iotdm/hub/store"
)

const (
	stream  = "iotdm-log"
	subject = "iotdm.log"
	feed    = "iotdm.feed" // where the stream publishes what it has stored
	bucket  = "iotdm-snap"
)

// window is how long the stream knows the id of a group.
const window = 2 * time.Minute

// A Log is a store.Log in NATS.
type Log struct {
	conn   *natsconn.Conn
	stream jetstream.Stream
}

var _ store.Log = (*Log)(nil)

// Create makes the streams of a hub of which NATS keeps so many copies: 3, or 5,
// or 1 for trying out. Streams that are there keep what they hold, and get the
// settings that they need.
func Create(ctx context.Context, conn *natsconn.Conn, copies int) error {
	// Who waits for the log finds the snapshots, too.
	_, err := conn.JetStream.CreateOrUpdateObjectStore(ctx, bucketConfig(copies))
	if err != nil {
		return fmt.Errorf("make object store %s: %w", bucket, conn.Explain(err))
	}
	return conn.EnsureStream(ctx, config(copies))
}

// Remove removes the log and the snapshots, if they are there.
func Remove(ctx context.Context, conn *natsconn.Conn) error {
	if err := conn.JetStream.DeleteStream(ctx, stream); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("remove stream %s: %w", stream, conn.Explain(err))
	}
	if err := conn.JetStream.DeleteObjectStore(ctx, bucket); err != nil && !errors.Is(err, jetstream.ErrBucketNotFound) && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("remove object store %s: %w", bucket, conn.Explain(err))
	}
	return nil
}

// Copies returns of how many copies Create was asked. The error is ErrNoHub if it
// never was.
func Copies(ctx context.Context, conn *natsconn.Conn) (int, error) {
	s, err := conn.JetStream.Stream(ctx, stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return 0, fmt.Errorf("%w at %s: make one with: %s", natsconn.ErrNoHub, conn.URL(), conn.Command("init"))
	}
	if err != nil {
		return 0, fmt.Errorf("stream %s: %w", stream, conn.Explain(err))
	}
	return natsconn.Copies(s.CachedInfo().Config), nil
}

// Open returns the log and the snapshots that Create has made. It refuses streams
// with other settings.
func Open(ctx context.Context, conn *natsconn.Conn) (*Log, *Snapshots, error) {
	copies, err := Copies(ctx, conn)
	if err != nil {
		return nil, nil, err
	}
	s, err := conn.CheckStream(ctx, config(copies))
	if err != nil {
		return nil, nil, err
	}
	objects, err := conn.JetStream.ObjectStore(ctx, bucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		return nil, nil, fmt.Errorf("%w: object store %s is missing at %s; make it with: %s", natsconn.ErrSettings, bucket, conn.URL(), conn.Command("init"))
	}
	if err != nil {
		return nil, nil, fmt.Errorf("object store %s: %w", bucket, conn.Explain(err))
	}
	status, err := objects.Status(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("object store %s: %w", bucket, conn.Explain(err))
	}
	if status.Replicas() < copies {
		return nil, nil, fmt.Errorf("%w: object store %s at %s has %d copies and not %d; set that right with: %s", natsconn.ErrSettings, bucket, conn.URL(), status.Replicas(), copies, conn.Command("init"))
	}
	snapshots := &Snapshots{conn: conn, objects: objects}
	if _, _, _, err := snapshots.newest(ctx); err != nil { // who keeps copies may not be heard here yet
		return nil, nil, fmt.Errorf("object store %s: %w", bucket, err)
	}
	return &Log{conn, s}, snapshots, nil
}

func config(copies int) jetstream.StreamConfig {
	return natsconn.WithCopies(jetstream.StreamConfig{
		Name: stream, Subjects: []string{subject}, Description: "changes of the hub's state",
		Storage: jetstream.FileStorage, Retention: jetstream.LimitsPolicy,
		MaxMsgs: -1, MaxBytes: -1, MaxMsgsPerSubject: -1, MaxMsgSize: -1, MaxConsumers: -1,
		Duplicates: window, DenyDelete: true, AllowDirect: true,
		RePublish: &jetstream.RePublish{Source: subject, Destination: feed},
	}, copies)
}

// Append implements store.Log.
func (l *Log) Append(ctx context.Context, id string, group []byte) error {
	_, err := l.conn.JetStream.PublishMsg(ctx, &nats.Msg{Subject: subject, Data: group},
		jetstream.WithMsgID(id), jetstream.WithExpectStream(stream), jetstream.WithRetryAttempts(0))
	if err != nil {
		return fmt.Errorf("append to the log: %w", l.conn.Explain(err))
	}
	return nil
}

// Bounds implements store.Log: it asks the stream's leader.
func (l *Log) Bounds(ctx context.Context) (first, end uint64, err error) {
	info, err := l.info(ctx)
	if err != nil {
		return 0, 0, err
	}
	return max(info.State.FirstSeq, 1), info.State.LastSeq + 1, nil
}

// End implements store.Log: it asks the stream's leader, who is sure of it while no
// other server can have been elected.
func (l *Log) End(ctx context.Context) (end uint64, sure bool, err error) {
	s, err := l.Status(ctx)
	return s.End, s.undisputed(), err
}

func (l *Log) info(ctx context.Context) (*jetstream.StreamInfo, error) {
	info, err := l.stream.Info(ctx)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, fmt.Errorf("%w: stream %s is gone", store.ErrLogWentBack, stream)
	}
	if err != nil {
		return nil, fmt.Errorf("look at the log: %w", l.conn.Explain(err))
	}
	return info, nil
}

// Trim implements store.Log.
func (l *Log) Trim(ctx context.Context, before uint64) error {
	if err := l.stream.Purge(ctx, jetstream.WithPurgeSequence(before)); err != nil {
		return fmt.Errorf("trim the log: %w", l.conn.Explain(err))
	}
	return nil
}

// A Status says how the log is kept.
type Status struct {
	First, End uint64 // positions
	Bytes      uint64
	Leader     string // the server that orders it; empty: none
	Copies     []Copy // of the others
	wanted     int    // how many servers shall have it
}

// A Copy is one of those that other servers than the leader have.
type Copy struct {
	Server  string
	Current bool
	Offline bool          // its server has said that it stops
	Heard   time.Duration // how long ago the leader heard of it; 0: not since it leads
	Lag     uint64        // how many operations it is behind
}

// Away reports whether its server does not follow at all. One that does is heard of
// each second.
func (c Copy) Away() bool {
	return c.Offline || c.Heard > 3*time.Second || c.Heard == 0 && !c.Current
}

// Status asks how the log is kept.
func (l *Log) Status(ctx context.Context) (Status, error) {
	info, err := l.info(ctx)
	if err != nil {
		return Status{}, err
	}
	s := Status{First: max(info.State.FirstSeq, 1), End: info.State.LastSeq + 1, Bytes: info.State.Bytes, wanted: info.Config.Replicas}
	if c := info.Cluster; c != nil {
		s.Leader = c.Leader
		for _, r := range c.Replicas {
			s.Copies = append(s.Copies, Copy{Server: r.Name, Current: r.Current, Offline: r.Offline, Heard: r.Active, Lag: r.Lag})
		}
	}
	return s, nil
}

// patientWith is for how long, at most, whoever answered has not heard of any other
// server, so that none of them stands for election yet: that takes a server of NATS at
// least 4 s without the leader, of which it hears each second.
const patientWith = 2500 * time.Millisecond

// undisputed reports whether whoever answered leads: no other server was without it for
// so long that it can have been elected.
func (s Status) undisputed() bool {
	for _, c := range s.Copies {
		if c.Heard == 0 || c.Heard > patientWith {
			return false
		}
	}
	return len(s.Copies)+1 >= s.wanted
}

// sure reports whether whoever answered speaks for more than half of the copies.
func (s Status) sure() bool {
	current := 1
	for _, c := range s.Copies {
		if c.Current && !c.Offline {
			current++
		}
	}
	return 2*current > len(s.Copies)+1
}
