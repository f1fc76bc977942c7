package engine

import (
	"encoding/binary"
	"time"

	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
)

const (
	// A peer that does not read may leave this many bytes waiting before it
	// loses its connection.
	maxQueued = 2 << 20

	// Send refuses while this much waits, and is ready again at half of it. What
	// is above it is for answers and for Post.
	softQueued = 1 << 20

	// A peer has writeTimeout for every bufferSize bytes.
	writeTimeout = 20 * time.Second
)

// A written is the disposition that is the last frame of the queue, so that it
// can be made to say more.
type written struct {
	session *session // nil if the last frame is none
	at      int      // where it is in the last buffer
	wire.Disposition
	last uint32
}

// countLocked counts n more bytes that wait, and ends a connection on which too
// many do.
func (c *Conn) countLocked(n int) {
	if c.state == ended || n == 0 {
		return
	}
	c.recountLocked(n)
	if c.queued > maxQueued {
		c.endLocked(ErrSlowReader)
	}
}

func (c *Conn) recountLocked(n int) {
	c.queued += n
	if c.opt.Queued != nil {
		c.opt.Queued(n)
	}
}

// tailLocked returns the last buffer of the queue, in which n bytes have room
// unless they need more than a whole one.
func (c *Conn) tailLocked(n int) *[]byte {
	if last := len(c.out) - 1; last >= 0 && cap(c.out[last])-len(c.out[last]) >= n {
		return &c.out[last]
	}
	b := buffers.Get().(*[bufferSize]byte)[:0]
	if n > bufferSize {
		freeBuffer(b)
		b = make([]byte, 0, n)
	}
	c.out = append(c.out, b)
	return &c.out[len(c.out)-1]
}

// queueLocked queues a frame that is no transfer.
func (c *Conn) queueLocked(channel uint16, body wire.Performative) {
	if c.state == closing || c.state == ended {
		return
	}
	c.written.session = nil
	tail := c.tailLocked(256)
	before := len(*tail)
	*tail = wire.AppendFrame(*tail, channel, body, nil)
	c.countLocked(len(*tail) - before)
}

// queueTransferLocked queues one frame of a delivery with as much of message as
// the peer's frames hold, and returns the rest. Of t it sets More.
func (c *Conn) queueTransferLocked(channel uint16, t *wire.Transfer, message []byte) (rest []byte) {
	if c.state == closing || c.state == ended {
		t.More = false
		return nil
	}
	c.written.session = nil
	tail := c.tailLocked(min(len(message)+128, c.peerFrame))
	b := *tail
	before := len(b)
	t.More = false
	b = wire.AppendFrame(b, channel, t, nil)
	if len(b)-before+len(message) > c.peerFrame {
		t.More = true
		b = wire.AppendFrame(b[:before], channel, t, nil)
	}
	n := min(len(message), c.peerFrame-(len(b)-before))
	b = append(b, message[:n]...)
	binary.BigEndian.PutUint32(b[before:], uint32(len(b)-before))
	*tail = b
	c.countLocked(len(b) - before)
	return message[n:]
}

// queueDispositionLocked queues a disposition, settled, of the deliveries first
// to last. If the last frame of the queue says the same of their neighbours, it
// says it of them too.
func (c *Conn) queueDispositionLocked(s *session, role wire.Role, first, last uint32, state wire.State) {
	if c.state == closing || c.state == ended || s.ending {
		return
	}
	d := &c.written
	if d.session == s && d.Role == role && d.State == state && (first == d.last+1 || last+1 == d.First) {
		tail := &c.out[len(c.out)-1]
		before := len(*tail)
		if first == d.last+1 {
			d.last = last
		} else {
			d.First = first
		}
		d.Last = &d.last
		*tail = wire.AppendFrame((*tail)[:d.at], s.channel, &d.Disposition, nil)
		c.countLocked(len(*tail) - before)
		return
	}
	tail := c.tailLocked(256)
	d.session, d.at = s, len(*tail)
	d.last = last
	d.Disposition = wire.Disposition{Role: role, First: first, Settled: true, State: state}
	if last != first {
		d.Last = &d.last
	}
	*tail = wire.AppendFrame(*tail, s.channel, &d.Disposition, nil)
	c.countLocked(len(*tail) - d.at)
}

// writeLocked has somebody write what is queued: the goroutine that reads, if
// it is about to look, or else one that is started, unless there is one.
func (c *Conn) writeLocked() {
	if c.awake && c.queued < bufferSize {
		return
	}
	c.startWritingLocked()
}

func (c *Conn) startWritingLocked() {
	if !c.writing && len(c.out) > 0 {
		c.writing = true
		c.running.Go(c.write)
	}
}

// flush writes what the reading goroutine has answered. It leaves to another
// what takes long.
func (c *Conn) flush() {
	if !c.claimWrite() {
		return
	}
	if c.writeNext() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.state != ended {
			c.running.Go(c.write)
		}
	}
}

// claimWrite reports whether the caller shall write one buffer.
func (c *Conn) claimWrite() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.writing || len(c.out) == 0 {
		return false
	}
	if len(c.out) > 1 {
		c.startWritingLocked()
		return false
	}
	c.writing = true
	return true
}

// write writes until the queue is empty. Who starts it has set writing.
func (c *Conn) write() {
	for c.writeNext() {
	}
}

// writeNext writes the first buffer of the queue, lets those send who wait for
// the room, and reports whether there is another.
func (c *Conn) writeNext() (more bool) {
	c.mu.Lock()
	if len(c.out) == 0 { // the connection has ended
		c.writing = false
		c.mu.Unlock()
		return false
	}
	b := c.out[0]
	c.out[0] = nil
	if c.out = c.out[1:]; len(c.out) == 0 {
		c.out = nil
		c.written.session = nil
	}
	c.inFlight = len(b)
	c.mu.Unlock()

	err := c.writeAll(b)
	freeBuffer(b)
	c.mu.Lock()
	c.sentAt = time.Now()
	c.recountLocked(-c.inFlight)
	c.inFlight = 0
	if err != nil {
		c.endLocked(err)
	}
	c.mu.Unlock()
	c.wakeStarved()

	c.mu.Lock()
	defer c.mu.Unlock()
	c.writing = c.state != ended && len(c.out) > 0
	return c.writing
}

func (c *Conn) writeAll(b []byte) error {
	deadline := soon(time.Now(), writeTimeout)
	if err := c.writeUntil(deadline); err != nil {
		return err
	}
	if _, err := c.net.Write(b); err != nil {
		if !time.Now().Before(deadline) {
			return ErrSlowReader
		}
		return lost(err)
	}
	return nil
}

// writeUntil sets a deadline for writing, unless the connection has to end.
func (c *Conn) writeUntil(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == ended {
		return c.reason
	}
	if t.Equal(c.writeBy) {
		return nil
	}
	c.writeBy = t
	if err := c.net.SetWriteDeadline(t); err != nil {
		return lost(err)
	}
	return nil
}

// soon returns a deadline d behind now, or up to a second more. So one that is
// renewed with every frame stays the same for most of them, and need not be set.
func soon(now time.Time, d time.Duration) time.Time {
	return now.Add(d + time.Second - 1).Truncate(time.Second)
}

// wakeStarved tells links that their Send may succeed again, one behind the other
// as they were refused, and as long as it may.
func (c *Conn) wakeStarved() {
	for {
		l := c.nextStarved()
		if l == nil {
			return
		}
		l.ready()
	}
}

func (c *Conn) nextStarved() *Link {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.state == open {
		var l *Link
		switch {
		case len(c.capped) > 0 && c.unsettled < maxConnUnsettled:
			l = pop(&c.capped)
		case len(c.starved) > 0 && c.queued <= softQueued/2:
			l = pop(&c.starved)
		default:
			return nil
		}
		l.starved = false
		if l.state == open {
			l.wakeLocked()
			return l
		}
	}
	return nil
}

func pop(list *[]*Link) *Link {
	l := (*list)[0]
	(*list)[0] = nil
	if *list = (*list)[1:]; len(*list) == 0 {
		*list = nil
	}
	return l
}
