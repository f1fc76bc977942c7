// Package controls is what can be done to a hub under test: its clock is moved.
// Azure's hub has none of it.
//
// A node has [Controls] if it was made with node.Options.TestControls. Over REST
// they are below /iotdm/control, on the command line "iotdm hub clock" and its
// like, and in Go tests methods of hubtest.Hub.
package controls

import (
	"sync"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/clock"
)

// ErrClosed is returned once the hub closes.
var ErrClosed = hub.ErrClosed

// Options configure New.
type Options struct {
	// Clock is the hub's, which can be moved.
	Clock *clock.Clock

	// Moved is called after each move of the clock, if it is not nil.
	Moved func() error
}

// Controls are the controls of one hub. Their methods may be called
// concurrently; what changes the hub is done one call after the other.
type Controls struct {
	opt Options

	mu     sync.Mutex // held while the hub is being changed; guards what follows
	closed bool
}

// New returns the controls of a hub.
func New(opt Options) *Controls { return &Controls{opt: opt} }

// Close waits for what is under way and refuses what comes later.
func (c *Controls) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
}

// change runs f when nothing else changes the hub.
func (c *Controls) change(f func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	return f()
}
