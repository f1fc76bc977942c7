package natslog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/iotdm/iotdm/hub/store"
	"github.com/iotdm/iotdm/internal/wait"
)

const (
	// silence is how long a follower hears nothing before it looks for itself. The
	// members of a cluster append something every second.
	silence = 400 * time.Millisecond

	// A page is what a follower that is behind reads at a time.
	pageGroups = 256
	pageBytes  = 8 << 20

	// pageWait bounds the pauses within a page.
	pageWait = time.Second

	// doubt is how long the log must seem to have gone back until that is believed.
	doubt = 3 * time.Second

	// heldBytes bounds what waits for a slow follower. The rest it reads later.
	heldBytes = 64 << 20
)

// A follower is one call of Follow.
type follower struct {
	*Log
	fn   func(pos uint64, at time.Time, group []byte) error
	next uint64

	doubted time.Time // since when the log seems to have gone back; zero: it does not
	checked time.Time // when that was looked at last
}

// errFn is an error of the caller's function.
type errFn struct{ err error }

func (e errFn) Error() string { return e.err.Error() }

// Follow implements store.Log. While NATS does not answer it waits. The error is
// store.ErrLogWentBack if the log ends before what was followed already.
func (l *Log) Follow(ctx context.Context, from uint64, fn func(pos uint64, at time.Time, group []byte) error) error {
	f := &follower{Log: l, fn: fn, next: max(from, 1)}
	sub, err := l.conn.SubscribeSync(feed)
	if err != nil {
		return fmt.Errorf("follow the log: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := sub.SetPendingLimits(-1, heldBytes); err != nil {
		return fmt.Errorf("follow the log: %w", err)
	}
	err = f.run(ctx, sub)
	if own, ok := errors.AsType[errFn](err); ok {
		return own.err
	}
	return err
}

func (f *follower) run(ctx context.Context, sub *nats.Subscription) error {
	for {
		if err := f.catchUp(ctx); err != nil {
			return err
		}
		if err := f.listen(ctx, sub); err != nil {
			return err
		}
	}
}

// listen takes what the stream publishes, until something is missing or nothing
// comes.
func (f *follower) listen(ctx context.Context, sub *nats.Subscription) error {
	for {
		short, cancel := context.WithTimeout(ctx, silence)
		m, err := sub.NextMsgWithContext(short)
		cancel()
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrBadSubscription):
			return fmt.Errorf("follow the log: %w", err)
		case err != nil: // silence, or a slow consumer
			return nil
		}
		pos, at, err := place(m)
		switch {
		case err != nil: // not the stream's
			continue
		case pos > f.next:
			return nil
		case pos < f.next:
			if err := f.checkEnd(ctx); err != nil {
				return err
			}
		default:
			if err := f.take(pos, at, m.Data); err != nil {
				return err
			}
		}
	}
}

func (f *follower) take(pos uint64, at time.Time, group []byte) error {
	if err := f.fn(pos, at, group); err != nil {
		return errFn{err}
	}
	f.next = pos + 1
	return nil
}

// place returns the position of a group and its time, which stand in headers.
func place(m *nats.Msg) (pos uint64, at time.Time, err error) {
	if m.Header.Get(jetstream.StreamHeader) != stream {
		return 0, at, errors.New("a message of another stream")
	}
	if pos, err = strconv.ParseUint(m.Header.Get(jetstream.SequenceHeader), 10, 64); err != nil {
		return 0, at, err
	}
	at, err = time.Parse(time.RFC3339Nano, m.Header.Get(jetstream.TimeStampHeaer))
	return pos, at, err
}

// catchUp reads the stream to its end.
func (f *follower) catchUp(ctx context.Context) error {
	for {
		before := f.next
		gap, err := f.page(ctx)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			if own, ok := errors.AsType[errFn](err); ok {
				return own
			}
			if err := wait.For(ctx, silence/4); err != nil {
				return err
			}
			return nil // and listen meanwhile
		case gap:
			if err := f.bridge(ctx); err != nil {
				return err
			}
		case f.next == before:
			return f.checkEnd(ctx)
		}
	}
}

// page reads what comes next, of any copy of the stream. There is a gap if that
// copy has something behind, but not this.
func (f *follower) page(ctx context.Context) (gap bool, err error) {
	question, err := json.Marshal(struct {
		Seq      uint64 `json:"seq"`
		Batch    int    `json:"batch"`
		MaxBytes int    `json:"max_bytes"`
	}{f.next, pageGroups, pageBytes})
	if err != nil {
		return false, err
	}
	inbox := f.conn.NewRespInbox()
	sub, err := f.conn.SubscribeSync(inbox)
	if err != nil {
		return false, err
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		return false, err
	}
	if err := f.conn.PublishRequest("$JS.API.DIRECT.GET."+stream, inbox, question); err != nil {
		return false, err
	}
	for {
		short, cancel := context.WithTimeout(ctx, pageWait)
		m, err := sub.NextMsgWithContext(short)
		cancel()
		if err != nil {
			return false, err
		}
		switch status := m.Header.Get("Status"); status {
		case "":
		case "204", "404": // the end of the page; nothing there
			return false, nil
		default:
			return false, fmt.Errorf("read the log: %s %s", status, m.Header.Get("Description"))
		}
		pos, at, err := place(m)
		switch {
		case err != nil:
			return false, err
		case pos > f.next:
			return true, nil
		case pos == f.next:
			if err := f.take(pos, at, m.Data); err != nil {
				return false, err
			}
		}
	}
}

// bridge gets over a gap that one copy has: it asks the leader.
func (f *follower) bridge(ctx context.Context) error {
	at, group, err := f.fromLeader(ctx, f.next)
	if err == nil {
		return f.take(f.next, at, group)
	}
	first, _, boundsErr := f.Bounds(ctx)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case boundsErr == nil && first > f.next:
		return fmt.Errorf("%w: position %d is wanted, and %d is the first", store.ErrTrimmed, f.next, first)
	}
	return wait.For(ctx, silence)
}

func (f *follower) fromLeader(ctx context.Context, pos uint64) (at time.Time, group []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, pageWait)
	defer cancel()
	m, err := f.conn.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET."+stream, fmt.Appendf(nil, `{"seq":%d}`, pos))
	if err != nil {
		return at, nil, err
	}
	var answer struct {
		Error   *jetstream.APIError
		Message struct {
			Seq  uint64
			Data []byte
			Time time.Time
		}
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		return at, nil, err
	}
	if answer.Error != nil {
		return at, nil, answer.Error
	}
	if answer.Message.Seq != pos {
		return at, nil, fmt.Errorf("position %d was asked for, and %d came", pos, answer.Message.Seq)
	}
	return answer.Message.Time, answer.Message.Data, nil
}

// checkEnd looks whether the log still reaches to where it was followed.
func (f *follower) checkEnd(ctx context.Context) error {
	if time.Since(f.checked) < time.Second {
		return nil
	}
	f.checked = time.Now()
	s, err := f.Status(ctx)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, store.ErrLogWentBack):
		s.End, s.Leader = 1, "gone"
	case err != nil:
		return nil
	}
	switch {
	case s.First > f.next:
		return fmt.Errorf("%w: position %d is wanted, and %d is the first", store.ErrTrimmed, f.next, s.First)
	case s.End >= f.next || s.Leader == "" && len(s.Copies) > 0 || !s.sure():
		// A leader that is cut off may not know of the end. It does not speak for many
		// for long.
		f.doubted = time.Time{}
	case f.doubted.IsZero():
		f.doubted = time.Now()
	case time.Since(f.doubted) >= doubt:
		return fmt.Errorf("%w: it ends before position %d, and %d was there", store.ErrLogWentBack, s.End, f.next-1)
	}
	return nil
}
