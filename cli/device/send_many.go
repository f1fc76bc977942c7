package device

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/mqttdevice"
)

const (
	sendWindow  = 64        // messages on their way at once
	longestLine = 256 << 10 // what a hub takes as a message
)

// errNoMore is the end of a feed.
var errNoMore = io.EOF

// A feed is where the messages of one "device send" come from.
type feed struct {
	ch  chan mqttdevice.Message
	err error // why ch was closed
}

// feed starts to make the messages that o says, each with an id and the time.
// It ends with ctx, or when it is read to the end.
func (o *deviceSendOptions) feed(ctx context.Context, s output.Streams) *feed {
	f := &feed{ch: make(chan mqttdevice.Message, sendWindow)}
	prefix, n := rand.Text()[:10], 0
	pace := time.Duration(o.interval)
	emit := func(payload []byte) error {
		if n > 0 && pace > 0 {
			select {
			case <-time.After(pace):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		n++
		m := o.message
		m.Payload = payload
		if m.ID == "" {
			m.ID = fmt.Sprint(prefix, "-", n)
		}
		m.Created = time.Now()
		if err := m.Validate(); err != nil {
			return fail.Errorf(fail.Usage, "message %d: %v", n, errors.Unwrap(err))
		}
		select {
		case f.ch <- m:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	go func() { // not waited for: a read of standard input cannot be ended
		defer close(f.ch)
		if o.lines {
			f.err = readLines(s.In, emit)
			return
		}
		for range o.count {
			if f.err = emit(o.message.Payload); f.err != nil {
				return
			}
		}
		f.err = errNoMore
	}()
	return f
}

// readLines calls emit for each line that is not empty.
func readLines(r io.Reader, emit func([]byte) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, longestLine+2)
	n := 0
	for lines.Scan() {
		n++
		if len(lines.Bytes()) == 0 {
			continue
		}
		if err := emit([]byte(lines.Text())); err != nil {
			return err
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return fail.Errorf(fail.Usage, "line %d is longer than a message may be (%d KiB)", n+1, longestLine>>10)
	} else if lines.Err() != nil {
		return fail.Errorf(fail.Failed, "standard input: %v", fail.PlainPathError(lines.Err()))
	}
	return errNoMore
}

// next returns the next message; errNoMore at the end.
func (f *feed) next(ctx context.Context) (mqttdevice.Message, error) {
	select {
	case m, ok := <-f.ch:
		if !ok {
			return m, f.err
		}
		return m, nil
	case <-ctx.Done():
		return mqttdevice.Message{}, ctx.Err()
	}
}

// some returns the next message, and those that are there already.
func (f *feed) some(ctx context.Context) (messages []mqttdevice.Message, err error) {
	m, err := f.next(ctx)
	for err == nil {
		messages = append(messages, m)
		if len(messages) == sendWindow || len(f.ch) == 0 {
			break
		}
		m, err = f.next(ctx)
	}
	return messages, err
}

// sendMany sends what the feed has, over as many connections as it takes.
func (o *deviceSendOptions) sendMany(ctx context.Context, s output.Streams, t target.Target, client *mqttdevice.Client) error {
	progress, n, began := output.NewTally(s), 0, time.Now()
	r := repeater{feed: o.feed(ctx, s), acked: func() { n++; progress.Show(n, output.Count(n, "message")) }}
	var err error
	for {
		err = client.SendStream(ctx, sendWindow, r.next, r.taken)
		if !errors.Is(err, mqttdevice.ErrConnectionLost) || ctx.Err() != nil {
			break
		}
		progress.Tell("%v; sending goes on when it is back", errors.Unwrap(err))
		r.again()
	}
	progress.Tell("Sent %s as %s%s", output.Count(n, "message"), t.Identity(), output.Rate(n, time.Since(began)))
	if f, ok := errors.AsType[*fail.Error](err); ok { // of the feed
		return f
	}
	if err != nil {
		return t.ExplainDevice(ctx, err)
	}
	return nil
}

// A repeater remembers the messages of a feed that no hub has acknowledged,
// and gives them out again.
type repeater struct {
	feed  *feed
	acked func()

	mu    sync.Mutex
	open  []mqttdevice.Message // not acknowledged; oldest first
	given int                  // how many of them were given out
}

func (r *repeater) next(ctx context.Context) (mqttdevice.Message, error) {
	r.mu.Lock()
	if r.given < len(r.open) {
		defer r.mu.Unlock()
		r.given++
		return r.open[r.given-1], nil
	}
	r.mu.Unlock()
	m, err := r.feed.next(ctx)
	if err == nil {
		r.mu.Lock()
		r.open = append(r.open, m)
		r.given++
		r.mu.Unlock()
	}
	return m, err
}

func (r *repeater) taken() {
	r.mu.Lock()
	r.open = r.open[1:]
	r.given--
	r.mu.Unlock()
	r.acked()
}

// again begins anew with the oldest that was not acknowledged.
func (r *repeater) again() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.given = 0
}
