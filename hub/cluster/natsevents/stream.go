package natsevents

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/iotdm/iotdm/hub/cluster/natsconn"
)

const stream = "iotdm-ev"

// The events that devices send, and the hub's own, of each partition. What is
// stored is announced under the same name below feedPrefix, without its body.
const (
	subjectPrefix = "iotdm.ev."
	feedPrefix    = "iotdm.evs."
	ofDevices     = ".device"
	ofHub         = ".hub"

	partitionsKey = "iotdm-partitions" // in the stream's metadata
	maxPartitions = 32
)

// window is how long the stream knows the id of a batch: far longer than one is
// sent again.
const window = 2 * time.Minute

// Settings are those of a stream that is made.
type Settings struct {
	// Copies is how many servers have each event: 3, or 5, or 1 for trying out.
	Copies int

	// Partitions is the number of partitions, 1 to 32, which stays. 0 is 4, or
	// what there is.
	Partitions int

	// MaxAge is how long events are kept, unless MaxBytes is reached. 0 is one day,
	// or what there is.
	MaxAge time.Duration

	// MaxBytes bounds the events on the disk of each server. 0 is 1 GiB, or what
	// there is; -1 is no bound.
	MaxBytes int64
}

// Create makes the stream. One that is there gets the settings, and keeps what it
// holds as far as these let it; the number of partitions has to be the same.
func Create(ctx context.Context, conn *natsconn.Conn, s Settings) error {
	if s.Partitions < 0 || s.Partitions > maxPartitions {
		return fmt.Errorf("make event stream: %d partitions: want 1 to %d", s.Partitions, maxPartitions)
	}
	there, err := conn.JetStream.Stream(ctx, stream)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		if s.Partitions == 0 {
			s.Partitions = 4
		}
	case err != nil:
		return fmt.Errorf("stream %s: %w", stream, conn.Explain(err))
	default:
		had, err := settingsOf(conn, there.CachedInfo().Config)
		if err != nil {
			return err
		}
		if s.Partitions != 0 && s.Partitions != had.Partitions {
			return fmt.Errorf("make event stream: stream %s has %d partitions, which stay: leave --event-partitions out, or ask for %[2]d", stream, had.Partitions)
		}
		s.Partitions = had.Partitions
		s.MaxAge, s.MaxBytes = cmp.Or(s.MaxAge, had.MaxAge), cmp.Or(s.MaxBytes, had.MaxBytes)
	}
	return conn.EnsureStream(ctx, config(s))
}

// Check returns the settings of the stream.
//
// Errors: natsconn.ErrNoHub if there is no stream, natsconn.ErrSettings if it is
// not as Create makes it.
func Check(ctx context.Context, conn *natsconn.Conn) (s Settings, err error) {
	if there, err := conn.JetStream.Stream(ctx, stream); err == nil {
		if s, err = settingsOf(conn, there.CachedInfo().Config); err != nil {
			return s, err
		}
	}
	_, err = conn.CheckStream(ctx, config(s))
	return s, err
}

// settingsOf returns those of a stream that is there.
func settingsOf(conn *natsconn.Conn, c jetstream.StreamConfig) (Settings, error) {
	n, err := partitionsOf(conn, c)
	return Settings{Copies: natsconn.Copies(c), Partitions: n, MaxAge: c.MaxAge, MaxBytes: c.MaxBytes}, err
}

func partitionsOf(conn *natsconn.Conn, c jetstream.StreamConfig) (int, error) {
	n, err := strconv.Atoi(c.Metadata[partitionsKey])
	if err != nil || n < 1 || n > maxPartitions {
		return 0, fmt.Errorf("%w: stream %s does not say in its metadata (%s) how many partitions of events it has: remove the stream, and make it anew with: %s", natsconn.ErrSettings, stream, partitionsKey, conn.Command("init"))
	}
	return n, nil
}

func config(s Settings) jetstream.StreamConfig {
	if s.MaxAge == 0 {
		s.MaxAge = 24 * time.Hour
	}
	if s.MaxBytes == 0 {
		s.MaxBytes = 1 << 30
	}
	c := natsconn.WithCopies(jetstream.StreamConfig{
		Name: stream, Subjects: []string{subjectPrefix + "*.*"}, Description: "events of the hub",
		Storage: jetstream.FileStorage, Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardOld,
		MaxAge: s.MaxAge, MaxBytes: s.MaxBytes,
		MaxMsgs: -1, MaxMsgsPerSubject: -1, MaxMsgSize: -1, MaxConsumers: -1,
		Duplicates: min(window, s.MaxAge), DenyDelete: true, AllowDirect: true,
		RePublish: &jetstream.RePublish{Source: subjectPrefix + "*.*", Destination: feedPrefix + "{{wildcard(1)}}.{{wildcard(2)}}", HeadersOnly: true},
	}, s.Copies)
	c.Metadata[partitionsKey] = strconv.Itoa(s.Partitions)
	return c
}
