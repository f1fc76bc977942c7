package natsconn

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// ErrNoHub means that nobody has made a hub's streams in NATS.
var ErrNoHub = errors.New("there is no hub in NATS")

// ErrTooFewServers means that NATS cannot keep so many copies. For a moment that is
// so of a cluster that has just begun.
var ErrTooFewServers = errors.New("too few servers")

// ErrSettings means that a stream is not as the hub needs it.
var ErrSettings = errors.New("wrong settings")

// A setting is one member of a stream's configuration that the hub depends on.
type setting struct {
	name  string // as NATS calls it
	of    func(*jetstream.StreamConfig) any
	fixed bool // NATS does not change it
}

// settings are all of them. Others, such as placement and compression, are the
// operator's.
var settings = []setting{
	{"subjects", func(c *jetstream.StreamConfig) any { return c.Subjects }, false},
	{"metadata." + copiesKey, func(c *jetstream.StreamConfig) any { return Copies(*c) }, false},
	{"num_replicas", func(c *jetstream.StreamConfig) any { return c.Replicas }, false},
	{"max_msgs", func(c *jetstream.StreamConfig) any { return bound(c.MaxMsgs) }, false},
	{"max_bytes", func(c *jetstream.StreamConfig) any { return bound(c.MaxBytes) }, false},
	{"max_msgs_per_subject", func(c *jetstream.StreamConfig) any { return bound(c.MaxMsgsPerSubject) }, false},
	{"max_msg_size", func(c *jetstream.StreamConfig) any { return bound(int64(c.MaxMsgSize)) }, false},
	{"max_age", func(c *jetstream.StreamConfig) any { return c.MaxAge }, false},
	{"duplicate_window", func(c *jetstream.StreamConfig) any { return c.Duplicates }, false},
	{"allow_direct", func(c *jetstream.StreamConfig) any { return c.AllowDirect }, false},
	{"allow_msg_ttl", func(c *jetstream.StreamConfig) any { return c.AllowMsgTTL }, true},
	{"allow_msg_schedules", func(c *jetstream.StreamConfig) any { return c.AllowMsgSchedules }, true},
	{"no_ack", func(c *jetstream.StreamConfig) any { return c.NoAck }, false},
	{"republish", func(c *jetstream.StreamConfig) any { return c.RePublish }, false},
	{"subject_transform", func(c *jetstream.StreamConfig) any { return c.SubjectTransform }, false},
	{"allow_rollup_hdrs", func(c *jetstream.StreamConfig) any { return c.AllowRollup }, false},
	{"deny_purge", func(c *jetstream.StreamConfig) any { return c.DenyPurge }, true},
	{"deny_delete", func(c *jetstream.StreamConfig) any { return c.DenyDelete }, false},
	{"sealed", func(c *jetstream.StreamConfig) any { return c.Sealed }, true},
	{"storage", func(c *jetstream.StreamConfig) any { return c.Storage.String() }, true},
	{"retention", func(c *jetstream.StreamConfig) any { return c.Retention.String() }, true},
	{"persist_mode", func(c *jetstream.StreamConfig) any { return c.PersistMode }, true},
	{"mirror", func(c *jetstream.StreamConfig) any { return c.Mirror != nil }, true},
	{"sources", func(c *jetstream.StreamConfig) any { return len(c.Sources) > 0 }, false},
}

const (
	copiesKey     = "iotdm-copies" // of a stream's metadata: how many there shall be
	defaultCopies = 3
)

// WithCopies has a stream kept so many times, and remember that it shall be.
func WithCopies(c jetstream.StreamConfig, copies int) jetstream.StreamConfig {
	c.Replicas = copies
	c.Metadata = map[string]string{copiesKey: strconv.Itoa(copies)}
	return c
}

// Copies returns how often a stream shall be kept.
func Copies(c jetstream.StreamConfig) int {
	if n, err := strconv.Atoi(c.Metadata[copiesKey]); err == nil && n > 0 {
		return n
	}
	return defaultCopies
}

// bound is a limit, of which NATS has several ways to say that there is none.
func bound(n int64) int64 { return max(n, 0) }

// EnsureStream makes a stream, or gives one that is there the settings of want. What
// it holds stays.
func (c *Conn) EnsureStream(ctx context.Context, want jetstream.StreamConfig) error {
	s, err := c.JetStream.Stream(ctx, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		if _, err := c.JetStream.CreateStream(ctx, want); err != nil {
			return fmt.Errorf("make stream %s: %w", want.Name, c.Explain(err))
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("stream %s: %w", want.Name, c.Explain(err))
	}
	got := s.CachedInfo().Config
	wrong, fixed := differences(&want, &got)
	switch {
	case fixed:
		return c.wrong(want.Name, wrong, fixed)
	case len(wrong) == 0:
		return nil
	}
	next := want
	next.Placement, next.Compression, next.Description = got.Placement, got.Compression, got.Description
	if _, err := c.JetStream.UpdateStream(ctx, next); err != nil {
		return fmt.Errorf("stream %s has other settings than the hub needs (%s), and NATS refuses to change them: %w", want.Name, strings.Join(wrong, ", "), c.Explain(err))
	}
	return nil
}

// CheckStream refuses a stream that is missing (ErrNoHub), or is not as want says
// (ErrSettings).
func (c *Conn) CheckStream(ctx context.Context, want jetstream.StreamConfig) (jetstream.Stream, error) {
	s, err := c.JetStream.Stream(ctx, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, fmt.Errorf("%w at %s: stream %s is missing; make one with: %s", ErrNoHub, c.url, want.Name, c.Command("init"))
	}
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", want.Name, c.Explain(err))
	}
	if wrong, fixed := differences(&want, &s.CachedInfo().Config); len(wrong) > 0 {
		return nil, c.wrong(want.Name, wrong, fixed)
	}
	return s, nil
}

func differences(want, got *jetstream.StreamConfig) (wrong []string, fixed bool) {
	for _, s := range settings {
		if w, g := s.of(want), s.of(got); !reflect.DeepEqual(w, g) {
			wrong = append(wrong, s.name)
			fixed = fixed || s.fixed
		}
	}
	return wrong, fixed
}

func (c *Conn) wrong(stream string, wrong []string, fixed bool) error {
	remedy := "set them right with: " + c.Command("init")
	if fixed {
		remedy = "NATS cannot change all of them: back the hub up, remove the stream, and make the hub anew with: " + c.Command("init") + " --from FILE"
	}
	return fmt.Errorf("%w: stream %s at %s has other values than the hub needs of %s; %s", ErrSettings, stream, c.url, strings.Join(wrong, ", "), remedy)
}

// Explain adds to an error of JetStream what to do about it.
func (c *Conn) Explain(err error) error {
	var api *jetstream.APIError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return fmt.Errorf("NATS at %s has no JetStream for this user: put jetstream {...} into the configuration of its servers, and enable it for the account", c.url)
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, jetstream.ErrNoStreamResponse):
		return fmt.Errorf("%w: JetStream at %s does not answer: see that it is enabled, and that more than half of the servers run", ErrUnreachable, c.url)
	case errors.As(err, &api):
		switch api.ErrorCode {
		case 10005: // no suitable peers
			return fmt.Errorf("%w: the cluster of NATS at %s has less than copies are wanted: start more, or ask for fewer copies with --replicas", ErrTooFewServers, c.url)
		case 10074: // more replicas than one, without a cluster
			return fmt.Errorf("the server of NATS at %s stands alone and keeps one copy: have three make a cluster, or ask for one copy with --replicas 1", c.url)
		case 10023, 10028, 10047, 10077: // resources, storage, bytes
			return fmt.Errorf("%s: NATS at %s has no room left: give JetStream more of the disk (max_file_store), or the account a higher limit", api.Description, c.url)
		case 10065: // subjects overlap
			return fmt.Errorf("%s: another stream of this account takes the hub's subjects (iotdm.>): give the hub an account of its own", api.Description)
		}
		return err
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout):
		if v := c.violation.Load(); v != nil {
			text, _, _ := strings.Cut(words(*v), "\n")
			return fmt.Errorf("the user of NATS may not do what the hub needs (%s): let it publish to iotdm.>, $JS.API.>, $JS.FC.> and $O.iotdm-snap.>, and subscribe to iotdm.>", text)
		}
		return fmt.Errorf("%w: JetStream at %s does not answer: see that more than half of the servers run", ErrUnreachable, c.url)
	}
	return err
}
