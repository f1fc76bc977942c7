// Package engine is the transport of AMQP 1.0 as the side that accepts
// connections: sessions, links, windows, credit, transfers in several frames,
// settlement, idle time-outs and an orderly end. What an address means, who the
// peer is and what it may do is its caller's.
//
// An idle connection is the one goroutine that reads it. That one calls the
// Handler, and Inlets and Outlets but for two cases: Ready is also called by a
// goroutine that has written, when there is room again behind a Send that was
// refused, and Detached by one of its own after Detach or DetachAll. The calls to
// one Inlet or Outlet come one at a time, and none under a lock that a method
// here takes. They may call everything here but Wait, and should not take long,
// since the peer is not read meanwhile.
//
// Methods may be called from any goroutine, also under the caller's locks. None
// waits for the peer unless it says so: what is sent is queued, with a bound, and
// written by a goroutine that lives while the queue holds something, or by the
// one that reads before it waits for more.
package engine

import (
	"errors"

	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
)

// Why a connection ended, besides *wire.Error. They may wrap more.
var (
	ErrClosed     = errors.New("the peer closed the connection")         // by close, whose error is wrapped
	ErrLost       = errors.New("the peer went away without a close")     // also by an error of the network
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
	// by an attach without source and target, which amqp:link:stolen alone
	// echoes, and a detach with the error behind it.
	Attach(*Link) error
}

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
	// again behind a Send or CanSend that reported false. A peer that drains the
	// link gets what Ready sends, and then the rest of its credit is gone.
	Ready()

	// Settled says what the peer made of a delivery that was sent with ref: nil
	// if it settled without a word. A peer that waits for an answer (receiver
	// settle mode second) is answered with what Settled returns, nil being the
	// same state. Of those that are unsettled when the link ends it says nothing.
	Settled(ref any, state wire.State) (answer wire.State)

	// Detached is that of Inlet.
	Detached()
}

// ErrDetached means that a link has ended.
var ErrDetached = errors.New("the link has ended")
