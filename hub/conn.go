package hub

import (
	"crypto/x509"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// A conn is one MQTT connection. The goroutine that reads it is the only one
// it has while idle: it answers what the device asks; what others send is
// queued, and written by a goroutine that lives while the queue holds
// something.
type conn struct {
	server *Server
	net    net.Conn
	chain  []*x509.Certificate // the client's certificate and its intermediates, if any

	// Set by CONNECT, before attach makes the connection known.
	id    ID
	host  string // the hub's name as the client wrote it
	grant grant
	since time.Time

	heard atomic.Int64  // Unix nanoseconds of the last packet
	gone  chan struct{} // closed when the connection has ended

	mu      sync.Mutex // guards what follows; never held over I/O
	reason  error      // why the hub ended the connection
	filters map[string]byte
	calls   map[string]chan<- methodAnswer // direct methods in flight by request id
	out     []byte                         // packets that wait to be written
	writing bool                           // a goroutine is writing out
}

// A peer that does not read may leave this many bytes waiting, and a write
// may take this long, before the hub ends its connection.
const (
	maxQueued    = 1 << 20
	writeTimeout = 20 * time.Second
)

func (c *conn) lastActivity() time.Time { return time.Unix(0, c.heard.Load()) }

// end closes the connection from outside its reading goroutine. The first
// reason is the one that is logged.
func (c *conn) end(reason error) {
	c.mu.Lock()
	if c.reason == nil {
		c.reason = reason
	}
	c.mu.Unlock()
	c.net.Close()
}

// expect registers a direct method that c is about to be sent.
func (c *conn) expect(rid string) (<-chan methodAnswer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.calls) >= maxMethodCalls {
		return nil, ErrTooManyMethodCalls
	}
	if c.calls == nil {
		c.calls = make(map[string]chan<- methodAnswer)
	}
	answer := make(chan methodAnswer, 1)
	c.calls[rid] = answer
	return answer, nil
}

// forget ends the wait for rid's answer. A later one is ignored.
func (c *conn) forget(rid string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.calls, rid)
}

// answer gives a to the caller that waits for rid, if one still does.
func (c *conn) answer(rid string, a methodAnswer) {
	c.mu.Lock()
	call, ok := c.calls[rid]
	delete(c.calls, rid)
	c.mu.Unlock()
	if ok {
		call <- a
	}
}

// send queues a packet and returns at once. A peer that leaves too much unread
// loses its connection.
func (c *conn) send(packet []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.out)+len(packet) > maxQueued {
		if c.reason == nil {
			c.reason = errSlowReader
		}
		c.net.Close()
		return
	}
	c.out = append(c.out, packet...)
	if !c.writing {
		// It ends with the queue, and the queue with the connection, which
		// Close closes and waits for.
		c.writing = c.server.goroutine(c.write)
	}
}

// write sends what is queued until nothing is.
func (c *conn) write() {
	for {
		c.mu.Lock()
		out := c.out
		c.out = nil
		if len(out) == 0 {
			c.writing = false
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
		c.net.SetWriteDeadline(time.Now().Add(writeTimeout))
		if _, err := c.net.Write(out); err != nil {
			c.end(err)
		}
	}
}
