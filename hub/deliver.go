package hub

import (
	"errors"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/iotdm/iotdm/hub/internal/disk"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/hub/journal"
	"github.com/iotdm/iotdm/hub/store"
)

// queues is what the hub knows in memory of the queues of cloud-to-device
// messages: how much waits, and what the devices have in hand.
type queues struct {
	mu         sync.Mutex // guards what follows; never held over I/O
	waiting    map[string]waiting
	locks      map[string][]lockedMessage
	turns      map[string]*turn // devices that messages are being sent to
	heldBack   map[string]heldMessage
	nextExpiry time.Time // no message expires before
	nextUnlock time.Time // no lock ends before
	total      int       // of the counts in waiting
	held       int       // of the locks
}

// waiting is what waits for a device, locked or not.
type waiting struct {
	count   int
	expires time.Time // the first of them
}

// A lockedMessage is a message that a device has in hand.
type lockedMessage struct {
	sequence uint64
	token    string
	until    time.Time
	settling bool // the device has said what becomes of it
	link     Link // the link it was sent on, nil over HTTPS
}

// A turn is held by who sends a device's messages, for their order.
type turn struct {
	mu    sync.Mutex
	users int // guarded by queues.mu: who hold it or wait for it
}

// never is after everything that is ever due.
var never = time.Unix(0, math.MaxInt64)

func (q *queues) init() {
	q.waiting = make(map[string]waiting)
	q.locks = make(map[string][]lockedMessage)
	q.turns = make(map[string]*turn)
	q.heldBack = make(map[string]heldMessage)
	q.nextExpiry, q.nextUnlock = never, never
}

// note takes down what is in a device's queue.
func (q *queues) note(device string, queue []queuedMessage) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.total += len(queue) - q.waiting[device].count
	if len(queue) == 0 {
		delete(q.waiting, device)
		return
	}
	w := waiting{len(queue), never}
	for _, m := range queue {
		w.expires = earlier(w.expires, m.expires)
	}
	q.waiting[device] = w
	q.nextExpiry = earlier(q.nextExpiry, w.expires)
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// takeTurn waits for the device's turn and returns what ends it.
func (q *queues) takeTurn(device string) (end func()) {
	q.mu.Lock()
	t := q.turns[device]
	if t == nil {
		t = new(turn)
		q.turns[device] = t
	}
	t.users++
	q.mu.Unlock()
	t.mu.Lock()
	return func() {
		t.mu.Unlock()
		q.mu.Lock()
		defer q.mu.Unlock()
		if t.users--; t.users == 0 {
			delete(q.turns, device)
		}
	}
}

// count returns how many messages wait for a device.
func (q *queues) count(device string) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.waiting[device].count
}

// queued returns how many messages wait for all devices.
func (q *queues) queued() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.total
}

// inHand returns how many of them devices have in hand.
func (q *queues) inHand() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.held
}

// depth returns for how many devices messages wait.
func (q *queues) depth() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting)
}

// locked reports whether a device has a message in hand.
func (q *queues) locked(device string, sequence uint64) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.ContainsFunc(q.locks[device], func(l lockedMessage) bool { return l.sequence == sequence })
}

// lock makes a message invisible, unless it is already.
func (q *queues) lock(device string, l lockedMessage) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if slices.ContainsFunc(q.locks[device], func(have lockedMessage) bool { return have.sequence == l.sequence }) {
		return false
	}
	q.locks[device] = append(q.locks[device], l)
	q.held++
	q.nextUnlock = earlier(q.nextUnlock, l.until)
	return true
}

// change calls f with the lock that has the token, if there is one.
func (q *queues) change(device, token string, f func(*lockedMessage)) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := range q.locks[device] {
		if l := &q.locks[device][i]; l.token == token {
			f(l)
		}
	}
}

// settle begins settling the message whose lock has the token. Only the first
// to settle it succeeds.
func (q *queues) settle(device, token string) (sequence uint64, ok bool) {
	q.change(device, token, func(l *lockedMessage) {
		ok = !l.settling
		l.settling = true
		sequence = l.sequence
	})
	return sequence, ok
}

// unlock makes the message visible again, if it still is in the queue.
func (q *queues) unlock(device, token string) {
	q.unlockAll(device, func(l lockedMessage) bool { return l.token == token })
}

// unlockAll ends the locks that match and returns them.
func (q *queues) unlockAll(device string, match func(lockedMessage) bool) (ended []lockedMessage) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.unlockLocked(device, match)
}

// unlockLocked is unlockAll for a caller that holds q.mu.
func (q *queues) unlockLocked(device string, match func(lockedMessage) bool) (ended []lockedMessage) {
	list := slices.DeleteFunc(q.locks[device], func(l lockedMessage) bool {
		if !match(l) {
			return false
		}
		ended = append(ended, l)
		return true
	})
	q.held -= len(ended)
	if len(list) == 0 {
		delete(q.locks, device)
	} else {
		q.locks[device] = list
	}
	return ended
}

// unlockDue ends the locks whose time is up, and returns them by device.
func (q *queues) unlockDue(now time.Time) map[string][]lockedMessage {
	q.mu.Lock()
	defer q.mu.Unlock()
	if now.Before(q.nextUnlock) {
		return nil
	}
	q.nextUnlock = never
	ended := make(map[string][]lockedMessage)
	for device := range q.locks {
		list := q.unlockLocked(device, func(l lockedMessage) bool { return !l.settling && !l.until.After(now) })
		if len(list) > 0 {
			ended[device] = list
		}
		for _, l := range q.locks[device] {
			q.nextUnlock = earlier(q.nextUnlock, l.until)
		}
	}
	return ended
}

// expiring returns the devices that have a message whose time is up.
func (q *queues) expiring(now time.Time) (devices []string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if now.Before(q.nextExpiry) {
		return nil
	}
	q.nextExpiry = never
	for device, w := range q.waiting {
		q.nextExpiry = earlier(q.nextExpiry, w.expires) // what is in hand is looked at again
		if !w.expires.After(now) {
			devices = append(devices, device)
		}
	}
	return devices
}

// lockMessage makes the first visible message of a device invisible until then
// and returns it. It is not ok if there is none.
func (s *Server) lockMessage(device string, until time.Time, link Link) (m ReceivedMessage, ok bool, err error) {
	if s.queues.count(device) == 0 {
		return ReceivedMessage{}, false, nil
	}
	data, err := s.store.Get(queueKey(device))
	queue, err := decodeQueue(data, err)
	if err != nil {
		return ReceivedMessage{}, false, err
	}
	now := s.Now()
	for _, entry := range queue {
		l := lockedMessage{sequence: entry.sequence, token: s.lockToken(), until: until, link: link}
		if !entry.expires.After(now) || !s.queues.lock(device, l) {
			continue
		}
		// The queue may have changed since it was read. From here on it
		// doesn't, for this message.
		data, err := s.store.Get(disk.MessageKey(device, entry.sequence))
		if err == nil {
			m, err = decodeMessage(data)
		}
		if err == nil {
			entry, err = s.queueEntry(device, entry.sequence)
		}
		if err != nil {
			s.queues.unlock(device, l.token)
			if errors.Is(err, store.ErrNotFound) {
				continue
			}
			return ReceivedMessage{}, false, err
		}
		switch s.fateOf(device, entry.sequence) {
		case lost:
			continue
		case late:
			s.queues.unlock(device, l.token)
			return ReceivedMessage{}, false, nil
		}
		m.LockToken, m.Sequence, m.Deliveries = l.token, entry.sequence, entry.deliveries
		return m, true, nil
	}
	return ReceivedMessage{}, false, nil
}

// queueEntry returns what the queue of a device says of one message.
//
// Errors: store.ErrNotFound.
func (s *Server) queueEntry(device string, sequence uint64) (queuedMessage, error) {
	data, err := s.store.Get(queueKey(device))
	queue, err := decodeQueue(data, err)
	if err != nil {
		return queuedMessage{}, err
	}
	at := slices.IndexFunc(queue, func(m queuedMessage) bool { return m.sequence == sequence })
	if at < 0 {
		return queuedMessage{}, store.ErrNotFound
	}
	return queue[at], nil
}

// settleMessage ends the lock with the token: the message leaves the queue, or
// is abandoned and waits again, unless that has happened too often.
//
// Errors: ErrMessageLockLost, ErrDeviceNotFound.
func (s *Server) settleMessage(device, token string, o outcome) error {
	sequence, ok := s.queues.settle(device, token)
	if !ok {
		return ErrMessageLockLost
	}
	err := s.changeQueue(device, func(c *queueChange) error {
		at := c.find(sequence)
		if at < 0 {
			return ErrMessageLockLost // it was purged
		}
		if o == abandoned {
			c.queue[at].deliveries++
			c.changed = true
			if c.queue[at].deliveries < maxDeliveries {
				c.tx.OnCommit(func() {
					s.metrics.messages(1, abandoned)
					s.noteMessage(device, journal.Abandoned, new(Message))
				})
				return nil
			}
			return s.removeMessage(c, sequence, deliveryCountExceeded)
		}
		return s.removeMessage(c, sequence, o)
	})
	var refused *Error
	if err != nil && !errors.As(err, &refused) {
		// What the device said is not on disk. It may say it again.
		s.queues.change(device, token, func(l *lockedMessage) { l.settling = false })
		return err
	}
	s.queues.unlock(device, token)
	return err
}

// deliver sends what waits for a device, in its order, if the device is
// connected and takes it.
func (s *Server) deliver(device string) {
	if s.queues.count(device) == 0 {
		return
	}
	defer s.queues.takeTurn(device)()
	link := s.Link(ID{Device: device})
	if link == nil {
		return
	}
	// What was sent on a connection that has been taken over comes again, and
	// before what is new.
	s.queues.unlockAll(device, func(l lockedMessage) bool { return l.link != nil && l.link != link && !l.settling })
	for {
		more, err := s.deliverNext(device, link)
		if err != nil {
			s.log.Error("delivering a message", words.LogID, device, words.LogReason, err)
		}
		if !more || err != nil {
			return
		}
	}
}

// deliverNext sends one message.
func (s *Server) deliverNext(device string, link Link) (more bool, err error) {
	if !link.TakesMessages() {
		return false, nil
	}
	m, ok, err := s.lockMessage(device, s.Now().Add(messageLock), link)
	if !ok || err != nil {
		return false, err
	}
	taken, settled := link.Deliver(&m)
	if taken {
		s.noteMessage(device, journal.Delivered, &m.Message)
	}
	switch {
	case !taken:
		s.queues.unlock(device, m.LockToken)
		return false, nil
	case settled:
		return true, s.settleMessage(device, m.LockToken, completed)
	}
	return true, nil
}

// messageTick is how long after its time a lock ends or a message expires at
// most.
const messageTick = time.Second

// keepQueues ends locks and drops messages and feedback whose time is up.
func (s *Server) keepQueues() {
	tick := s.clock.NewTicker(messageTick)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.sweepQueues()
		case <-s.ctx.Done():
			return
		}
	}
}

func (s *Server) sweepQueues() {
	now := s.Now()
	for device, locks := range s.queues.unlockDue(now) {
		for _, l := range locks {
			if l.link != nil {
				l.link.Forget(l.token)
			}
		}
		s.deliver(device)
	}
	for _, device := range s.queues.expiring(now) {
		if s.home(device) != s.Epoch() {
			continue
		}
		if err := s.changeQueue(device, nil); err != nil && !errors.Is(err, ErrDeviceNotFound) { // it was deleted since
			s.log.Error("dropping expired messages", words.LogID, device, words.LogReason, err)
			break // until the next tick
		}
	}
	if !s.Leads() {
		return
	}
	if err := s.dropFeedback(now); err != nil {
		s.log.Error("dropping expired feedback", words.LogReason, err)
	}
}

// ReceiveMessage returns the first message that waits for a device, and makes
// it invisible for the duration lock; 0 is one minute. It is not ok if there is
// none.
//
// Errors: ErrDeviceNotFound, ErrServiceUnavailable if another node does not answer.
func (s *Server) ReceiveMessage(device string, lock time.Duration) (m ReceivedMessage, ok bool, err error) {
	if _, err := s.readIdentity(ID{Device: device}); err != nil {
		return ReceivedMessage{}, false, err
	}
	if lock <= 0 {
		lock = messageLock
	}
	received, err := s.receiveAtHome(device, lock)
	if received == nil {
		return ReceivedMessage{}, false, err
	}
	return *received, true, nil
}

// CompleteMessage removes a message that a device has received, and sends it
// what waits besides. So do the others that settle one.
//
// Errors: ErrMessageLockLost, ErrDeviceNotFound, ErrServiceUnavailable if another
// node does not answer.
func (s *Server) CompleteMessage(device, lockToken string) error {
	return s.settle(settlement{device, lockToken, completed})
}

// RejectMessage removes a message that a device has received and does not
// want. The errors are those of CompleteMessage.
func (s *Server) RejectMessage(device, lockToken string) error {
	return s.settle(settlement{device, lockToken, rejected})
}

// AbandonMessage lets a message that a device has received wait again. After
// the tenth time it is removed. The errors are those of CompleteMessage.
func (s *Server) AbandonMessage(device, lockToken string) error {
	return s.settle(settlement{device, lockToken, abandoned})
}
