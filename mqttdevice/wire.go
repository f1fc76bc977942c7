package mqttdevice

import (
	"errors"
	"net"
	"sync/atomic"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// writeTimeout is how long one packet may take to leave this machine.
const writeTimeout = 10 * time.Second

// maxPacket bounds what the hub may send in one packet. Its largest is a twin: twice 32 KB, somewhat
// more with JSON's escapes.
const maxPacket = 1 << 20

// A wire is the network connection under paho. It tells the session of a failure at once, whatever
// paho is doing; gives every write a deadline, where paho has none for pings; and refuses packets
// that paho's decoder would trust.
type wire struct {
	net.Conn
	lose   func(error)
	frames framing
}

// Read reads from the hub.
func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if bad := w.frames.check(p[:n]); bad != nil {
		n, err = 0, bad
	}
	if err != nil {
		w.lose(err)
	}
	return n, err
}

// Write writes one packet.
func (w *wire) Write(p []byte) (int, error) {
	if err := w.Conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		w.lose(err)
		return 0, err
	}
	n, err := w.Conn.Write(p)
	if err != nil {
		w.lose(err)
	}
	// TLS may have to write later on, when nobody sets a deadline.
	_ = w.Conn.SetWriteDeadline(time.Time{}) // a connection that is closed shows elsewhere
	return n, err
}

// SetWriteDeadline does nothing: every write has a deadline, and paho would set it once more for each.
func (w *wire) SetWriteDeadline(time.Time) error { return nil }

// framing follows the fixed headers in a stream of MQTT packets. paho reserves memory for whatever
// length a header claims, and panics on a SUBACK with more codes than there were filters.
type framing struct {
	filters int // in the one SUBSCRIBE that is sent

	published atomic.Int64 // PUBLISH packets that have begun to arrive

	kind   byte
	header int // bytes of the fixed header seen
	length int
	body   int // bytes of the current packet still to come
}

func (f *framing) check(p []byte) error {
	for len(p) > 0 {
		if f.body > 0 {
			n := min(f.body, len(p))
			f.body -= n
			p = p[n:]
			continue
		}
		b := p[0]
		p = p[1:]
		if f.header == 0 {
			f.kind, f.header, f.length = b>>4, 1, 0
			continue
		}
		f.length |= int(b&0x7f) << (7 * (f.header - 1))
		f.header++
		more := b&0x80 != 0
		if f.length > maxPacket || more && f.header > 4 {
			return errors.New("the hub sent a packet that is too large")
		}
		if more {
			continue
		}
		if f.kind == packets.Suback && f.length != 2+f.filters {
			return errors.New("the hub sent a malformed SUBACK")
		}
		if f.kind == packets.Publish {
			f.published.Add(1)
		}
		f.header, f.body = 0, f.length
	}
	return nil
}
