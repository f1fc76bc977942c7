// Package engine is the transport of AMQP 1.0 as the side that accepts
// connections: sessions, links, windows, credit, transfers in several frames,
// settlement, idle time-outs and an orderly end. What an address means, who the
// peer is and what it may do is its caller's.
//
// An idle connection is the one goroutine that reads it. That one calls the
// Handler, Inlets and Outlets, one call at a time and without a lock; they may
// call everything here. Methods may be called from any goroutine, and none waits
// for the peer unless it says so: what is sent is queued, with a bound, and
// written by a goroutine that lives while the queue holds something.
package engine

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
)

// Why a connection ended, besides errors of the network and *wire.Error.
var (
	ErrClosed     = errors.New("the peer closed the connection")         // by close
	ErrLost       = errors.New("the peer went away without a close")     // end of the stream
	ErrSilent     = errors.New("the peer was silent for too long")       // idle time-out
	ErrSlowReader = errors.New("the peer does not read what it is sent") // bound of the queue
)

// A Handler decides what a peer may do.
type Handler interface {
	// Open takes the peer's open. An error refuses the connection: it is closed
	// with the condition of a *wire.Error, and amqp:internal-error for others.
	Open(*wire.Open) error

	// Attach decides on a link that the peer attaches. It sets Inlet or Outlet
	// of the link, and may change what it is answered. A *wire.Error refuses it:
	// by an attach with a null terminus on the hub's side of the address and a
	// detach with the error behind it; amqp:link:stolen with the terminus echoed.
	Attach(*Link) error
}

// Options are the bounds of a connection. Zero values are defaults.
type Options struct {
	Container   string        // the hub's container id
	IdleTimeout time.Duration // announced to the peer: 4 minutes
	MaxFrame    uint32        // announced: 65536
	MaxSessions int           // at one time: 1100
	MaxLinks    int           // of a connection at one time: 8200
	Queued      func(n int)   // told of bytes that wait to be written, more or fewer, if not nil; it calls nothing of the engine

	// Now is the clock of LastActivity: time.Now.
	Now func() time.Time
}

// A Conn is one connection.
type Conn struct{}

// New returns the connection on nc. Nothing is read or written before Header.
func New(nc net.Conn, opt Options) *Conn { panic("TODO engine") }

// Header reads the protocol header of 8 bytes that comes next.
func (c *Conn) Header() (string, error) { panic("TODO engine") }

// Write writes bytes during the handshake, before Serve, and waits for it.
func (c *Conn) Write(b []byte) error { panic("TODO engine") }

// SASLFrame reads a SASL frame, of at most 512 bytes... as the specification
// bounds it; a SAS token in PLAIN may be longer, so the bound is 8 KiB.
func (c *Conn) SASLFrame() (wire.Frame, error) { panic("TODO engine") }

// Serve reads frames and calls h, until the connection ends, and returns why.
// The peer's header has been read and answered. It closes nc; every Inlet and
// Outlet has been told Detached when it returns.
func (c *Conn) Serve(h Handler) error { panic("TODO engine") }

// Close ends the connection in order: it sends close, with the error if that is
// not nil, and ends when the peer has answered or a few seconds later. It does
// not wait. The first call counts.
func (c *Conn) Close(e *wire.Error) { panic("TODO engine") }

// End drops the connection at once, for a reason that Serve returns.
func (c *Conn) End(reason error) { panic("TODO engine") }

// LastActivity is when the last frame came. It takes no lock.
func (c *Conn) LastActivity() time.Time { panic("TODO engine") }

// NetConn returns the connection that carries it.
func (c *Conn) NetConn() net.Conn { panic("TODO engine") }

// An Inlet is behind a link on which the peer sends.
type Inlet interface {
	// Receive takes a delivery that is complete. It or somebody later settles it,
	// unless it came settled. d.Payload is valid until Receive returns.
	Receive(d *Delivery)

	// Detached says that the link has ended, whoever ended it. It is the last call.
	Detached()
}

// An Outlet is behind a link on which the hub sends.
type Outlet interface {
	// Ready says that the link takes more: credit has come, or there is room
	// again behind a Send that reported false.
	Ready()

	// Settled says what the peer made of a delivery that was sent with ref: nil
	// if it settled without a word. A peer that waits for an answer (receiver
	// settle mode second) is answered with what Settled returns, nil being the
	// same state. Of those that are unsettled when the link ends it says nothing.
	Settled(ref any, state wire.State) (answer wire.State)

	// Detached is that of Inlet.
	Detached()
}

// A Link is one direction between the peer and an address.
type Link struct {
	// What the peer attached. Source and Target are echoed as they are; a
	// handler may change them before that. Neither is nil: one that the peer
	// left out is empty.
	Name                string
	Role                wire.Role // the peer's: wire.Sender has an Inlet, wire.Receiver an Outlet
	Source              *wire.Source
	Target              *wire.Target
	Properties          wire.Fields
	DesiredCapabilities []wire.Symbol
	SndSettleMode       *uint8 // as asked, and echoed
	RcvSettleMode       *uint8

	// What the handler decides in Attach.
	Inlet               Inlet
	Outlet              Outlet
	Credit              uint32 // of an Inlet: how many deliveries may be under way, unsettled ones counted. 0 grants none
	MaxMessageSize      uint64 // of an Inlet: larger deliveries are rejected by the engine with amqp:link:message-size-exceeded, announced to the peer; of an Outlet announced only
	OfferedCapabilities []wire.Symbol
	AnswerProperties    wire.Fields // of the answering attach

	conn *Conn
}

// Conn returns the connection of l.
func (l *Link) Conn() *Conn { panic("TODO engine") }

// SameSession reports whether both links are of one session.
func (l *Link) SameSession(other *Link) bool { panic("TODO engine") }

// Detach ends l: it sends detach, closed and with the error if that is not nil.
// The first call counts.
func (l *Link) Detach(e *wire.Error) { panic("TODO engine") }

// CanSend reports whether Send would succeed now.
func (l *Link) CanSend() bool { panic("TODO engine") }

// Send sends an encoded message if the peer has given credit for it and not too
// much waits to be written, and reports whether it did. With settled, or a
// peer that asked for settled deliveries, it is settled at once and ref is not
// used. tag may be nil: then the engine makes one. A ref that is nil is not kept:
// what the peer makes of it is answered as far as the protocol wants it.
// Send keeps no slice.
func (l *Link) Send(message, tag []byte, settled bool, ref any) bool { panic("TODO engine") }

// Post sends an encoded message as Send does, settled or with a nil ref, or
// keeps it until the peer gives credit. Too many that wait end the connection
// with ErrSlowReader.
func (l *Link) Post(message []byte, settled bool) { panic("TODO engine") }

// Unsettle forgets the ref of a delivery that was sent; Settled is not called
// for it any more.
func (l *Link) Unsettle(ref any) { panic("TODO engine") }

// Wait waits until Send may succeed. The error is that of ctx, or ErrDetached.
func (l *Link) Wait(ctx context.Context) error { panic("TODO engine") }

// ErrDetached means that a link has ended.
var ErrDetached = errors.New("the link has ended")

// A Delivery is a message that the peer has sent.
type Delivery struct {
	Link    *Link
	Tag     []byte
	Format  uint32
	Settled bool // by the sender: nothing has to be said of it
	Payload []byte
}

// Settle says what became of the delivery, settled, from any goroutine. Calls
// behind the first do nothing. The dispositions of deliveries that are settled
// one behind the other, alike, go out as one range.
func (d *Delivery) Settle(s wire.State) { panic("TODO engine") }

// Accept settles it as accepted.
func (d *Delivery) Accept() { d.Settle(wire.Accepted{}) }

// Reject settles it as rejected.
func (d *Delivery) Reject(e *wire.Error) { d.Settle(&wire.Rejected{Error: e}) }
