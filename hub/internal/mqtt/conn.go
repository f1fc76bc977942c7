package mqtt

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/serve"
	"github.com/iotdm/iotdm/hub/internal/words"
)

// A conn is one MQTT connection, and the hub.Link of its identity; or that of a
// device which asks the provisioning service for its hub.
//
// The goroutine that reads it is the only one it has while idle. That one also
// writes the answers to what the device asks, when there is nothing more to
// read at once. What others send is queued and written by a goroutine that
// lives while the queue holds something, so that a device that doesn't read
// makes nobody wait. Methods whose names end in Locked need c.mu held.
type conn struct {
	door *Door
	net  net.Conn
	over *serve.Connections // counts it
	in   packetBuffer

	// Set by CONNECT, before Attach makes the connection known.
	peer      hub.Peer
	keepAlive time.Duration  // how long it may be silent
	expires   time.Time      // when the grant expires on the machine's clock, which deadlines go by
	clean     bool           // it has no session that outlives it
	will      *hub.Telemetry // sent if it goes without DISCONNECT
	asks      *registrant    // who asks the provisioning service, if it is no link

	heard atomic.Int64  // Unix nanoseconds of the last packet
	gone  chan struct{} // closed when the connection has ended

	mu        sync.Mutex // guards what follows; never held over I/O
	reason    error      // why it ended or has to end; set once
	open      bool       // CONNACK is queued, and others may send
	filters   []subscription
	calls     []pendingCall // direct methods in flight
	messages  []pendingMessage
	late      []lateAck
	lateBytes int           // of other answers that faults keep back
	unstored  int           // telemetry that is not durable yet
	allStored chan struct{} // closed when it is; nil if nobody waits
	lastID    uint16        // packet identifier of the last message
	sent      uint64        // bytes that were ever queued
	read      uint64        // of which the device has read so many, as its answers show
	out       []byte        // packets that wait to be written
	writing   bool          // somebody is writing out
	writers   sync.WaitGroup

	readBy, writeBy time.Time // the deadlines that are set
}

// A pendingCall is a direct method that waits for the device's answer.
type pendingCall struct {
	rid    string
	answer chan<- answer
	sent   uint64 // conn.sent with the method
}

// An answer is what a device sent to a direct method.
type answer struct {
	hub.MethodAnswer
	err error
}

// A pendingMessage is a QoS 1 PUBLISH that waits for the device's PUBACK.
type pendingMessage struct {
	id    uint16
	token string // of the message's lock
}

const (
	// A peer that does not read may leave this many bytes waiting, which is
	// more than all direct methods in flight, before it loses its connection.
	maxQueued = 2 << 20

	// Answers are written while more is being read once this many bytes wait.
	maxBatch = 16 << 10

	// While the device has no more than this to read, a write finds room in
	// the buffer of any socket and does not wait for the device.
	maxUnread = 4 << 10

	// A peer has writeTimeout for every writeChunk bytes.
	writeChunk   = 16 << 10
	writeTimeout = 20 * time.Second

	// maxFilters is the service's limit of topic filters on a connection, from
	// "Communicate with IoT Hub using the MQTT protocol".
	maxFilters = 5

	// maxUnacked bounds the messages a device has not acknowledged. The
	// service's own bound is not documented; an edge hub has this one.
	maxUnacked = 16
)

var longAgo = time.Unix(1, 0)

// Peer implements hub.Link.
func (c *conn) Peer() hub.Peer { return c.peer }

// LastActivity implements hub.Link.
func (c *conn) LastActivity() time.Time { return time.Unix(0, c.heard.Load()) }

// End has the connection ended by the goroutine that reads it, which wakes at
// once. It implements hub.Link.
func (c *conn) End(reason error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endLocked(reason)
}

// EndIdle implements hub.Link.
func (c *conn) EndIdle(reason error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.calls) > 0 {
		return false
	}
	c.endLocked(reason)
	return true
}

func (c *conn) endLocked(reason error) {
	if c.reason != nil {
		return
	}
	c.reason = reason
	c.open = false
	c.door.metrics.queued.Add(-int64(len(c.out)))
	c.out = nil
	c.net.SetDeadline(longAgo)
}

// readUntil sets a deadline for reading, unless the connection has to end.
func (c *conn) readUntil(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reason != nil || t.Equal(c.readBy) {
		return c.reason
	}
	c.readBy = t
	return c.net.SetReadDeadline(t)
}

// writeUntil sets a deadline for writing, unless the connection has to end.
func (c *conn) writeUntil(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reason != nil || t.Equal(c.writeBy) {
		return c.reason
	}
	c.writeBy = t
	return c.net.SetWriteDeadline(t)
}

// soon returns a deadline d behind now, or up to a second more. So one that is
// renewed with every packet stays the same for most of them, and need not be set.
func soon(now time.Time, d time.Duration) time.Time {
	return now.Add(d + time.Second - 1).Truncate(time.Second)
}

// TakesMethod implements hub.Link. A filter for one request id is not known to
// take any call.
func (c *conn) TakesMethod(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.subscribedLocked(topicOfMethod(name, ""))
	return ok
}

// Call implements hub.Link.
func (c *conn) Call(ctx context.Context, name string, payload json.RawMessage) (_ hub.MethodAnswer, taken bool, err error) {
	rid := strconv.FormatUint(c.door.rid.Add(1), 16)
	answers, err := c.expect(rid)
	if err != nil {
		return hub.MethodAnswer{}, false, err
	}
	defer c.forget(rid)
	if !c.sendMethod(rid, topicOfMethod(name, rid), payload) {
		return hub.MethodAnswer{}, false, nil
	}
	select {
	case a := <-answers:
		return a.MethodAnswer, true, a.err
	case <-c.gone:
		// The answer may have been the last thing the device sent.
		select {
		case a := <-answers:
			return a.MethodAnswer, true, a.err
		default:
			return hub.MethodAnswer{}, true, hub.ErrDeviceNotOnline.With("Device unavailable")
		}
	case <-ctx.Done():
		return hub.MethodAnswer{}, true, context.Cause(ctx)
	}
}

// expect registers a direct method that c is about to be sent.
func (c *conn) expect(rid string) (<-chan answer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.calls) >= hub.MaxMethodCalls {
		return nil, hub.ErrTooManyMethodCalls
	}
	answers := make(chan answer, 1)
	c.calls = append(c.calls, pendingCall{rid: rid, answer: answers})
	return answers, nil
}

// forget ends the wait for rid's answer. A later one is ignored.
func (c *conn) forget(rid string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := c.callLocked(rid); i >= 0 {
		c.calls = slices.Delete(c.calls, i, i+1)
	}
}

// answer gives a to the caller that waits for rid, if one still does.
func (c *conn) answer(rid string, a answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := c.callLocked(rid)
	if i < 0 {
		return
	}
	call := c.calls[i]
	c.calls = slices.Delete(c.calls, i, i+1)
	c.read = max(c.read, call.sent)
	call.answer <- a // never waits: it is the only one
}

func (c *conn) callLocked(rid string) int {
	return slices.IndexFunc(c.calls, func(p pendingCall) bool { return p.rid == rid })
}

// subscribedLocked returns the QoS with which the device takes a topic.
func (c *conn) subscribedLocked(topic string) (qos byte, ok bool) {
	if !c.open {
		return 0, false
	}
	for _, s := range c.filters {
		if matches(c.peer.ID, s.filter, topic) {
			qos, ok = max(qos, s.qos), true
		}
	}
	return qos, ok
}

// sendMethod sends a direct method, at QoS 0 as the service does. It reports
// false if the device has not subscribed to it: after UNSUBACK nothing comes.
func (c *conn) sendMethod(rid, topic string, payload []byte) (sent bool) {
	sent, mine := c.queueMethod(rid, topic, payload)
	if !mine {
		return sent
	}
	// The caller is about to wait anyway. That it writes itself saves the
	// wake-up of another goroutine.
	if c.writeQueued() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.writing = false
		c.writeLocked()
	}
	return sent
}

// queueMethod queues a direct method, if the device takes it. It reports
// whether the caller shall write it, which it can do without waiting for the
// device.
func (c *conn) queueMethod(rid, topic string, payload []byte) (queued, mine bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.subscribedLocked(topic); !ok {
		return false, false
	}
	c.queueLocked(0, 0, topic, payload)
	if i := c.callLocked(rid); i >= 0 {
		c.calls[i].sent = c.sent
	}
	if c.writing || len(c.out) == 0 || c.sent-c.read > maxUnread {
		c.writeLocked()
		return true, false
	}
	c.writing = true
	return true, true
}

// SendDesired implements hub.Link.
func (c *conn) SendDesired(version int64, body json.RawMessage) {
	topic := desiredTopic + "?$version=" + strconv.FormatInt(version, 10)
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.subscribedLocked(topic); ok {
		c.sendLocked(0, 0, topic, body)
	}
}

// TakesMessages implements hub.Link.
func (c *conn) TakesMessages() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.takesMessagesLocked()
	return ok
}

// takesMessagesLocked returns the QoS with which the device has subscribed to
// cloud-to-device messages. It takes none while it has too many in hand.
func (c *conn) takesMessagesLocked() (qos byte, ok bool) {
	if c.peer.ID.Module != "" {
		return 0, false
	}
	qos, ok = c.subscribedLocked(topicPrefix(c.peer.ID) + messagesTopic + "?")
	return qos, ok && (qos == 0 || len(c.messages) < maxUnacked)
}

// Deliver implements hub.Link. At QoS 1 the device's acknowledgement settles the
// message.
func (c *conn) Deliver(m *hub.ReceivedMessage) (taken, settled bool) {
	topic := topicPrefix(c.peer.ID) + messagesTopic + messageBag(&m.Message, c.peer.ID.Device)
	c.mu.Lock()
	defer c.mu.Unlock()
	qos, ok := c.takesMessagesLocked()
	if !ok {
		return false, false
	}
	var id uint16
	if qos > 0 {
		id = c.nextIDLocked()
		c.messages = append(c.messages, pendingMessage{id, m.LockToken})
	}
	c.sendLocked(qos, id, topic, m.Body)
	return true, qos == 0
}

// Forget implements hub.Link.
func (c *conn) Forget(lockToken string) {
	c.takeMessage(func(p pendingMessage) bool { return p.token == lockToken })
}

// nextIDLocked returns a packet identifier that is not in use.
func (c *conn) nextIDLocked() uint16 {
	for {
		c.lastID++
		inUse := slices.ContainsFunc(c.messages, func(p pendingMessage) bool { return p.id == c.lastID })
		if c.lastID != 0 && !inUse {
			return c.lastID
		}
	}
}

// acknowledged handles the device's PUBACK.
func (d *Door) acknowledged(c *conn, id uint16) {
	m, ok := c.takeMessage(func(p pendingMessage) bool { return p.id == id })
	if !ok {
		return
	}
	err := d.hub.CompleteMessage(c.peer.ID.Device, m.token)
	if err != nil && !errors.Is(err, hub.ErrMessageLockLost) && !errors.Is(err, hub.ErrDeviceNotFound) {
		d.log.Error("completing a message", words.LogID, c.peer.ID.String(), words.LogReason, err)
	}
}

func (c *conn) takeMessage(match func(pendingMessage) bool) (m pendingMessage, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(c.messages, match)
	if i < 0 {
		return pendingMessage{}, false
	}
	m = c.messages[i]
	c.messages = slices.Delete(c.messages, i, i+1)
	return m, true
}
