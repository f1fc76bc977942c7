// Package controls is what can be done to a hub under test while it runs: it is
// reset, its state is put by and taken out again, its clock is moved. Azure's hub
// has none of it.
//
// A node has [Controls] if it was made with node.Options.TestControls. Over REST
// they are below /iotdm/control, on the command line "iotdm hub reset" and its
// like, and in Go tests methods of hubtest.Hub.
package controls

import (
	"sync"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/clock"
	"github.com/iotdm/iotdm/hub/configurations"
	"github.com/iotdm/iotdm/hub/jobs"
	"github.com/iotdm/iotdm/hub/provisioning"
	"github.com/iotdm/iotdm/hub/store"
)

// ErrClosed is returned once the hub closes.
var ErrClosed = hub.ErrClosed

// Options configure New.
type Options struct {
	// The parts of the hub, which are its owner's.
	Hub            *hub.Server // made to be Replaceable
	Jobs           *jobs.Scheduler
	Configurations *configurations.Engine
	Provisioning   *provisioning.Service
	Store          *store.DB

	// Seed gives an empty hub what it begins with, and ParseSeed returns what
	// does so with another seed. Its errors are one line, which says where.
	Seed      func() error
	ParseSeed func(text []byte) (seed func() error, err error)

	// Snapshots is the folder of the snapshots, which is made when it is needed;
	// Write replaces a file as a whole, durably. An empty folder is memory.
	Snapshots string
	Write     func(file string, data []byte) error

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
	shelf  shelf
}

// New returns the controls of a hub.
func New(opt Options) *Controls {
	return &Controls{opt: opt, shelf: shelf{dir: opt.Snapshots, write: opt.Write}}
}

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
