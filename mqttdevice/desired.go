package mqttdevice

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime/debug"

	"github.com/iotdm/iotdm/internal/wait"
	"github.com/iotdm/iotdm/twin"
)

// maxDesired is how many changes may wait for a slow handler. Beyond that they are forgotten, and
// the section is read once the handler is ready.
const maxDesired = 32

// Desired is a change of the desired properties.
type Desired struct {
	// Patch is to be merged into what the handler has been given so far: null means that a property
	// is gone. When the service replaces all of the section, it is all of that, and null for what is gone.
	Patch json.RawMessage
	// Version is that of the section with this change.
	Version int64
}

// HandleDesired sets the handler of changes to the desired properties. It is called for one change at
// a time, in order of their versions. The first change is all of the section, unless it is empty.
// Later changes come from the hub's notifications; those missed while the device was away are found
// by reading the section after each connection, as the article "Understand and use device twins in
// IoT Hub" asks for, and come as one change.
//
// The handler runs on a goroutine of the client. Close cancels ctx when it cannot wait any longer.
func (c *Client) HandleDesired(h func(ctx context.Context, d Desired)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.desired.handler = h
	if c.session != nil {
		c.deliverDesired()
	}
}

// A desiredQueue is what waits for the handler of desired properties. Client.mu guards it.
type desiredQueue struct {
	handler func(context.Context, Desired)
	changes []Desired
	stale   bool // the section must be read first
	running bool // deliver is on its way
}

func (q *desiredQueue) pending() bool {
	return q.handler != nil && (q.stale || len(q.changes) > 0)
}

// outdate makes reading the section the next step. That covers all changes so far.
func (q *desiredQueue) outdate() {
	q.changes, q.stale = nil, true
}

// observed is what the handler has been given so far.
type observed struct {
	properties json.RawMessage
	version    int64
}

// receiveDesired queues a notification.
func (c *Client) receiveDesired(version int64, body []byte) {
	patch, err := twin.StripReadOnly(body)
	if err != nil {
		c.log.Warn("desired properties that are no JSON object", logVersion, version, logError, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	q := &c.desired
	switch {
	case err != nil, q.handler == nil, len(q.changes) >= maxDesired:
		q.outdate()
	case !q.stale:
		q.changes = append(q.changes, Desired{Patch: patch, Version: version})
	}
	c.deliverDesired()
}

// deliverDesired starts delivering, if there is something to deliver. c.mu is held.
func (c *Client) deliverDesired() {
	q := &c.desired
	if q.pending() && !q.running {
		q.running = c.start(c.deliver)
	}
}

// deliver brings the handler up to date and returns. Only one runs at a time.
func (c *Client) deliver() {
	failures := 0
	for {
		c.mu.Lock()
		q := &c.desired
		if !q.pending() {
			q.running = false
			c.mu.Unlock()
			return
		}
		h, read, next := q.handler, q.stale, Desired{}
		if q.stale = false; !read {
			next, q.changes = q.changes[0], q.changes[1:]
		}
		c.handlers++
		c.mu.Unlock()

		err := c.deliverOne(h, next, read)
		c.returned()
		if err == nil {
			failures = 0
			continue
		}
		c.mu.Lock()
		c.desired.outdate()
		c.mu.Unlock()
		c.log.Warn("desired properties not read", logError, err)
		if wait.For(c.work, backoff(failures, err)) != nil {
			return
		}
		failures++
	}
}

// deliverOne calls h with one notification, or with what reading the section shows to be new.
func (c *Client) deliverOne(h func(context.Context, Desired), d Desired, read bool) error {
	seen := &c.observed
	if !read && d.Version <= seen.version {
		return nil
	}
	if read || d.Version > seen.version+1 {
		t, err := c.Twin(c.work)
		if err != nil {
			return err
		}
		if d.Patch, err = twin.MergePatch(seen.properties, t.Desired); err != nil {
			return fmt.Errorf("compare desired properties: %w", err)
		}
		// A smaller version is news too: the device was deleted and made again.
		d.Version = t.DesiredVersion
		*seen = observed{t.Desired, t.DesiredVersion}
		if string(d.Patch) == "{}" {
			return nil
		}
	} else {
		merged, err := twin.Merge(seen.properties, d.Patch)
		if err != nil {
			return fmt.Errorf("merge desired properties: %w", err)
		}
		*seen = observed{merged, d.Version}
	}
	defer func() {
		if p := recover(); p != nil {
			c.log.Error("the handler of desired properties panicked", logVersion, d.Version,
				logError, fmt.Sprint(p), logStack, string(debug.Stack()))
		}
	}()
	h(c.work, d)
	return nil
}
