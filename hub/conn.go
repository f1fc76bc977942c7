package hub

import (
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// A conn is one MQTT connection.
//
// The goroutine that reads it is the only one it has while idle. That one also
// writes the answers to what the device asks, when there is nothing more to
// read at once. What others send is queued and written by a goroutine that
// lives while the queue holds something, so that a device that doesn't read
// makes nobody wait. Methods whose names end in Locked need c.mu held.
type conn struct {
	server *Server
	net    net.Conn
	in     packetBuffer

	// Set by CONNECT, before attach makes the connection known.
	id        ID
	host      string // the hub's name as the client wrote it
	model     string // the Plug and Play model it announced
	grant     grant
	since     time.Time
	keepAlive time.Duration // how long it may be silent
	expires   time.Time     // grant.expires on the system's clock, which deadlines go by
	clean     bool          // it has no session that outlives it
	will      *telemetry    // sent if it goes without DISCONNECT

	heard atomic.Int64  // Unix nanoseconds of the last packet
	gone  chan struct{} // closed when the connection has ended

	mu        sync.Mutex // guards what follows; never held over I/O
	reason    error      // why it ended or has to end; set once
	open      bool       // CONNACK is queued, and others may send
	filters   []subscription
	calls     []pendingCall // direct methods in flight
	messages  []pendingMessage
	unstored  int           // telemetry that is not durable yet
	allStored chan struct{} // closed when it is; nil if nobody waits
	lastID    uint16        // packet identifier of the last message
	sent      uint64        // bytes that were ever queued
	read      uint64        // of which the device has read so many, as its answers show
	out       []byte        // packets that wait to be written
	writing   bool          // somebody is writing out
	writers   sync.WaitGroup
}

// A pendingCall is a direct method that waits for the device's answer.
type pendingCall struct {
	rid    string
	answer chan<- methodAnswer
	sent   uint64 // conn.sent with the method
}

// A pendingMessage is a QoS 1 PUBLISH that waits for the device's PUBACK.
type pendingMessage struct {
	id    uint16
	acked func()
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

func (c *conn) lastActivity() time.Time { return time.Unix(0, c.heard.Load()) }

// end has the connection ended by the goroutine that reads it, which wakes at
// once. The first reason is the one that counts.
func (c *conn) end(reason error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endLocked(reason)
}

func (c *conn) endLocked(reason error) {
	if c.reason != nil {
		return
	}
	c.reason = reason
	c.open = false
	c.out = nil
	c.net.SetDeadline(longAgo)
}

// setDeadline sets a deadline unless the connection has to end.
func (c *conn) setDeadline(set func(time.Time) error, t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reason != nil {
		return c.reason
	}
	return set(t)
}

// expect registers a direct method that c is about to be sent.
func (c *conn) expect(rid string) (<-chan methodAnswer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.calls) >= maxMethodCalls {
		return nil, ErrTooManyMethodCalls
	}
	answer := make(chan methodAnswer, 1)
	c.calls = append(c.calls, pendingCall{rid: rid, answer: answer})
	return answer, nil
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
func (c *conn) answer(rid string, a methodAnswer) {
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

// takes reports whether the device has subscribed to the topic.
func (c *conn) takes(topic string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.subscribedLocked(topic)
	return ok
}

// subscribedLocked returns the QoS with which the device takes a topic.
func (c *conn) subscribedLocked(topic string) (qos byte, ok bool) {
	if !c.open {
		return 0, false
	}
	for _, s := range c.filters {
		if c.id.matches(s.filter, topic) {
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

// sendDesired tells the device of its desired properties, if it has asked for
// that: body holds what the service wrote and the version.
func (c *conn) sendDesired(version int64, body []byte) {
	topic := desiredTopic + "?$version=" + strconv.FormatInt(version, 10)
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.subscribedLocked(topic); ok {
		c.sendLocked(0, 0, topic, body)
	}
}

// takesMessages returns the QoS with which the device has subscribed to
// cloud-to-device messages.
func (c *conn) takesMessages() (qos byte, ok bool) {
	if c.id.Module != "" {
		return 0, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.subscribedLocked(c.id.topicPrefix() + messagesTopic + "?")
}

// sendMessage sends a cloud-to-device message with the property bag. At QoS 1
// it has acked called, by the goroutine that reads c, when the device has
// acknowledged it, and returns the packet identifier for forgetMessage. It is
// not ok if the connection has ended or too many messages wait already.
func (c *conn) sendMessage(qos byte, bag string, body []byte, acked func()) (id uint16, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.open || qos > 0 && len(c.messages) >= maxUnacked {
		return 0, false
	}
	if qos > 0 {
		id = c.nextIDLocked()
		c.messages = append(c.messages, pendingMessage{id, acked})
	}
	c.sendLocked(qos, id, c.id.topicPrefix()+messagesTopic+bag, body)
	return id, true
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
func (c *conn) acknowledged(id uint16) {
	if m, ok := c.takeMessage(id); ok {
		m.acked()
	}
}

// forgetMessage ends the wait for a message's acknowledgement. A later one is
// ignored.
func (c *conn) forgetMessage(id uint16) { c.takeMessage(id) }

func (c *conn) takeMessage(id uint16) (m pendingMessage, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(c.messages, func(p pendingMessage) bool { return p.id == id })
	if i < 0 {
		return pendingMessage{}, false
	}
	m = c.messages[i]
	c.messages = slices.Delete(c.messages, i, i+1)
	return m, true
}
