package outbox

import (
	"context"
	"errors"
	"sync"

	"github.com/iotdm/iotdm/mqttdevice"
)

// window is how many messages are on their way at once: over a mobile network
// with 100 ms to the hub and back, 640 messages a second.
const window = 64

// Send sends the messages that are there and those that come, in their order,
// until ctx ends or the outbox or the client is closed; the error says which.
// Several are on their way at a time. When the connection is lost, the next
// one begins with the oldest message that was not acknowledged, so that the hub
// may get messages twice, but none of them for the first time behind a newer one.
//
// A message on which the hub hangs up each time stays the first: MQTT 3.1.1 cannot
// say no to one message, and a hub whose daily quota is used up hangs up on all.
//
// After ctx has ended Send waits for what the hub still acknowledges, for a few
// seconds. Only one Send at a time is possible.
func (b *Box) Send(ctx context.Context, client *mqttdevice.Client) error {
	if !b.sending.TryLock() {
		if b.closing.Err() != nil {
			return ErrClosed
		}
		return errors.New("the outbox is being sent already")
	}
	defer b.sending.Unlock()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(b.closing, func() { cancel(ErrClosed) })()
	for {
		s := sender{b: b, r: b.reader()}
		err := client.SendStream(ctx, window, s.next, s.acknowledged)
		if !errors.Is(err, mqttdevice.ErrConnectionLost) {
			return err
		}
	}
}

// A sender is one Send over one connection.
type sender struct {
	b *Box
	r *reader

	mu  sync.Mutex
	way []uint64 // messages on their way; oldest first
}

func (s *sender) next(ctx context.Context) (mqttdevice.Message, error) {
	m, sequence, err := s.r.read(ctx)
	if err == nil {
		s.mu.Lock()
		s.way = append(s.way, sequence)
		s.mu.Unlock()
	}
	return m, err
}

func (s *sender) acknowledged() {
	s.mu.Lock()
	upTo := s.way[0] + 1
	s.way = s.way[1:]
	s.mu.Unlock()
	s.b.acknowledged(upTo, 1)
}
