package hub

import (
	"encoding/binary"
	"errors"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/iotdm/iotdm/hub/internal/disk"
	"github.com/iotdm/iotdm/hub/journal"
	"github.com/iotdm/iotdm/hub/store"
)

// A device's queue of cloud-to-device messages is one record that says what
// waits, and a record for each message. A message is invisible while it is
// locked, which is not stored: after a restart everything waits again. Of several
// nodes the device's home knows what is locked.

func queueKey(device string) []byte    { return disk.Of(disk.Queue, device, "") }
func sequenceKey(device string) []byte { return disk.Of(disk.Sequence, device, "") }

// A queuedMessage is what a queue says of one message.
type queuedMessage struct {
	sequence   uint64
	expires    time.Time
	deliveries int // that ended with abandon
}

// queueFormat is the first byte of a stored queue. The numbers of its messages
// follow.
const queueFormat = 1

func encodeQueue(queue []queuedMessage) []byte {
	b := []byte{queueFormat}
	for _, m := range queue {
		b = binary.AppendUvarint(b, m.sequence)
		b = binary.AppendUvarint(b, uint64(m.expires.UnixNano()))
		b = binary.AppendUvarint(b, uint64(m.deliveries))
	}
	return b
}

// decodeQueue turns the result of a Get into a queue, which is in the order of
// the messages.
func decodeQueue(data []byte, err error) ([]queuedMessage, error) {
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var queue []queuedMessage
	r := disk.Read("queue", data, queueFormat)
	for r.More() {
		queue = append(queue, queuedMessage{r.Number(), time.Unix(0, int64(r.Number())), int(r.Number())})
	}
	return queue, r.Err()
}

// A queueChange is a change of a device's queue within a transaction.
type queueChange struct {
	tx      *store.Tx
	device  Identity
	now     time.Time
	queue   []queuedMessage
	changed bool
}

// changeQueue drops what has expired from the queue of a device, where this node
// is its home, and then applies change, which may be nil and may be called again.
//
// Errors: ErrDeviceNotFound, and those of change.
func (s *Server) changeQueue(device string, change func(*queueChange) error) error {
	return s.store.Update(device, func(tx *store.Tx) error {
		i, err := s.readIdentity(ID{Device: device})
		if err != nil {
			return err
		}
		c := queueChange{tx: tx, device: i, now: s.Now()}
		data, err := tx.Get(queueKey(device))
		if c.queue, err = decodeQueue(data, err); err != nil {
			return err
		}
		home, err := s.homeIn(tx.Get, device)
		if err != nil {
			return err
		}
		for _, m := range slices.Clone(c.queue) {
			// One that the device has in hand has still a chance.
			if home && !m.expires.After(c.now) && !s.queues.locked(device, m.sequence) {
				if err := s.removeMessage(&c, m.sequence, expired); err != nil {
					return err
				}
			}
		}
		if change != nil {
			if err := change(&c); err != nil {
				return err
			}
		}
		switch {
		case c.changed && len(c.queue) == 0:
			tx.Delete(queueKey(device))
		case c.changed:
			tx.Set(queueKey(device), encodeQueue(c.queue))
		}
		return nil
	})
}

// removeMessage takes a message out of the queue, with feedback if its sender
// wants some.
func (s *Server) removeMessage(c *queueChange, sequence uint64, o outcome) error {
	at := c.find(sequence)
	if at < 0 {
		return nil
	}
	key := disk.MessageKey(c.device.Device, sequence)
	data, err := c.tx.Get(key)
	if err != nil {
		return err
	}
	m, err := decodeMessage(data)
	if err != nil {
		return err
	}
	if m.Ack.wants(o) {
		when := c.now
		if o == expired {
			when = c.queue[at].expires
		}
		s.addFeedback(c.tx, c.now, Feedback{
			OriginalMessageID: m.MessageID, EnqueuedTime: when, StatusCode: o, Description: string(o),
			DeviceID: c.device.Device, DeviceGenerationID: c.device.GenerationID,
		})
	}
	c.tx.OnCommit(func() {
		s.metrics.messages(1, o)
		s.noteMessage(c.device.Device, journaled(o), &m.Message)
	})
	c.tx.Delete(key)
	c.queue = slices.Delete(c.queue, at, at+1)
	c.changed = true
	return nil
}

func (c *queueChange) find(sequence uint64) int {
	return slices.IndexFunc(c.queue, func(m queuedMessage) bool { return m.sequence == sequence })
}

// SendMessage puts a message into the queue of a device. When it returns, the
// message is durable, and on its way if the device is connected and takes
// messages.
//
// Errors: ErrDeviceNotFound, ErrArgumentInvalid, ErrMessageTooLarge,
// ErrQueueFull.
func (s *Server) SendMessage(device string, m Message) error {
	for _, text := range m.texts() {
		if !utf8.ValidString(*text) {
			return ErrArgumentInvalid.With("a property of the message is not UTF-8")
		}
	}
	if err := checkText(m.Properties); err != nil {
		return err
	}
	err := s.changeQueue(device, func(c *queueChange) error {
		expires, err := m.prepare(c.now)
		if err != nil {
			return err
		}
		if err := s.sendingFault(device); err != nil {
			return err
		}
		if len(c.queue) >= maxQueueDepth {
			return ErrQueueFull
		}
		sequence := uint64(1)
		if data, err := c.tx.Get(sequenceKey(device)); err == nil {
			last, _ := binary.Uvarint(data)
			sequence += last
		} else if !errors.Is(err, store.ErrNotFound) {
			return err
		}
		c.tx.OnCommit(s.metrics.sent.Inc)
		c.tx.Set(sequenceKey(device), binary.AppendUvarint(nil, sequence))
		c.tx.Set(disk.MessageKey(device, sequence), m.encode(c.now))
		c.queue = append(c.queue, queuedMessage{sequence: sequence, expires: expires})
		c.changed = true
		return nil
	})
	if err == nil {
		s.noteMessage(device, journal.Queued, &m)
		s.deliver(device) // if its link is here
	}
	return err
}

// PurgeMessages removes all messages from the queue of a device, those that
// the device has in hand included, and returns how many there were.
//
// Errors: ErrDeviceNotFound.
func (s *Server) PurgeMessages(device string) (n int, err error) {
	err = s.changeQueue(device, func(c *queueChange) error {
		n = len(c.queue)
		for _, m := range slices.Clone(c.queue) {
			if err := s.removeMessage(c, m.sequence, purged); err != nil {
				return err
			}
		}
		return nil
	})
	return n, err
}

// deleteQueue removes what a device that is deleted leaves.
func (s *Server) deleteQueue(tx *store.Tx, device string) {
	data, err := tx.Get(queueKey(device))
	queue, _ := decodeQueue(data, err)
	for _, m := range queue {
		tx.Delete(disk.MessageKey(device, m.sequence))
	}
	tx.Delete(queueKey(device))
	tx.Delete(sequenceKey(device))
	tx.OnCommit(func() { s.metrics.messages(len(queue), purged) })
}

// forget forgets what waits and what devices have in hand. Who has a device's
// turn keeps it.
func (q *queues) forget() {
	q.mu.Lock()
	defer q.mu.Unlock()
	clear(q.waiting)
	clear(q.locks)
	clear(q.heldBack)
	q.nextExpiry, q.nextUnlock = never, never
	q.total, q.held = 0, 0
}

// takeQueue takes down what waits for a device now, and sends it what another node
// has put there.
func (s *Server) takeQueue(c store.Change) error {
	var queue []queuedMessage
	if c.Value != nil {
		var err error
		if queue, err = decodeQueue(c.Value, nil); err != nil {
			return err
		}
	}
	device := string(c.Key[len(disk.Queue):])
	s.queues.note(device, queue)
	if s.peers != nil && !c.Mine && len(queue) > 0 && s.Link(ID{Device: device}) != nil {
		s.running.Go(func() { s.deliver(device) })
	}
	return nil
}

// loadQueues finds out what waits.
func (s *Server) loadQueues() error {
	prefix := []byte(disk.Queue)
	return s.store.Scan(prefix, store.PrefixEnd(prefix), func(k, v []byte) error {
		return s.takeQueue(store.Change{Key: k, Value: v})
	})
}
