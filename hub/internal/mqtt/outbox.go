package mqtt

import (
	"slices"
	"time"
)

// sendLocked queues a PUBLISH and has it written.
func (c *conn) sendLocked(qos byte, id uint16, topic string, payload []byte) {
	c.queueLocked(qos, id, topic, payload)
	c.writeLocked()
}

func (c *conn) queueLocked(qos byte, id uint16, topic string, payload []byte) {
	if c.open && c.roomLocked(len(topic)+len(payload)) {
		before := len(c.out)
		c.out = appendPublish(c.outLocked(), qos, id, topic, payload)
		c.countLocked(len(c.out) - before)
	}
}

// countLocked counts n more bytes that wait.
func (c *conn) countLocked(n int) {
	c.sent += uint64(n)
	c.door.metrics.queued.Add(int64(n))
}

// writeLocked has a goroutine write what is queued, unless somebody is writing
// already.
func (c *conn) writeLocked() {
	if !c.writing && len(c.out) > 0 {
		c.writing = true
		c.writers.Go(c.write)
	}
}

// roomLocked reports whether n more bytes may wait, and ends the connection if not.
func (c *conn) roomLocked(n int) bool {
	if len(c.out)+n <= maxQueued {
		return true
	}
	c.endLocked(errSlowReader)
	return false
}

// outLocked returns out, borrowed if it is empty.
func (c *conn) outLocked() []byte {
	if c.out == nil {
		c.out = buffers.Get().(*[pooledBuffer]byte)[:0]
	}
	return c.out
}

// reply queues packets of the reading goroutine, which has to flush them.
func (c *conn) reply(packets []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.replyLocked(packets)
}

// replyLocked is reply for a caller that holds c.mu.
func (c *conn) replyLocked(packets []byte) {
	if c.reason == nil && c.roomLocked(len(packets)) {
		c.out = append(c.outLocked(), packets...)
		c.countLocked(len(packets))
	}
}

// backlog returns how many bytes wait.
func (c *conn) backlog() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.out)
}

// flush writes what is queued, unless somebody is doing so already.
func (c *conn) flush() {
	if c.claimWrite() {
		c.write()
	}
}

// claimWrite reports whether the caller has to write what is queued.
func (c *conn) claimWrite() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.writing || len(c.out) == 0 {
		return false
	}
	c.writing = true
	return true
}

// write writes until the queue is empty. The caller has set writing.
func (c *conn) write() {
	for c.writeQueued() {
	}
}

// writeQueued writes what is queued when it begins, and reports whether there
// is more when it ends.
func (c *conn) writeQueued() (more bool) {
	c.mu.Lock()
	out := c.out
	c.out = nil
	c.mu.Unlock()
	if err := c.writeAll(out); err != nil {
		c.End(err)
	}
	c.door.metrics.queued.Add(-int64(len(out)))
	if cap(out) == pooledBuffer {
		buffers.Put((*[pooledBuffer]byte)(out[:pooledBuffer]))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writing = c.reason == nil && len(c.out) > 0
	return c.writing
}

func (c *conn) writeAll(out []byte) error {
	for chunk := range slices.Chunk(out, writeChunk) {
		deadline := soon(time.Now(), writeTimeout)
		if err := c.writeUntil(deadline); err != nil {
			return err
		}
		if _, err := c.net.Write(chunk); err != nil {
			if !time.Now().Before(deadline) {
				return errSlowReader
			}
			return fault{err, whyLost}
		}
	}
	return nil
}
