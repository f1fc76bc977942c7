package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"

	"github.com/iotdm/iotdm/internal/wait"
	"github.com/iotdm/iotdm/mqttdevice"
	"github.com/iotdm/iotdm/twin"
)

// A wish is what the desired properties say about one of them.
type wish struct {
	value   json.RawMessage // nil: the property is gone
	version int64           // of the desired properties
}

// A desiredProperty is one that the agent acts upon: with one wish at a time, and of those that come
// meanwhile the newest only.
type desiredProperty struct {
	path string
	// act carries out a wish, and reports what came of it. The agent waits for it when it closes.
	act func(ctx context.Context, w wish)
	// done reports whether a wish that the device finds when it connects was carried out before, as
	// the acknowledgement in the reported properties says, or as the device remembers.
	done func(w wish, acknowledged json.RawMessage) bool

	wake wait.Signal

	mu   sync.Mutex // guards what follows
	next *wish      // nil: nothing to do
	last *wish      // the newest there was
}

// An observer gives the desired properties to those who act upon them. It reads the twin upon each
// connection, because that shows what changed while the device was away and what was acknowledged;
// then it follows the hub's notifications.
type observer struct {
	agent      *Agent
	reporter   *reporter
	properties []*desiredProperty
	seen       []func(reported json.RawMessage) // called with the reported properties upon a connection

	mu      sync.Mutex // guards what follows, also while the twin is read
	started bool
	section json.RawMessage
	version int64 // of section
}

// observe makes the agent read the twin upon each connection.
func (a *Agent) observe() {
	if a.observer != nil {
		return
	}
	a.reporter = newReporter(a)
	a.observer = &observer{agent: a, reporter: a.reporter}
	a.client.HandleDesired(a.observer.changed)
	a.onConnected(a.observer.connected)
	a.background(a.reporter.run)
}

// watchDesired adds a property that is acted upon. It fails if one above, below or at path has been
// added before: their acknowledgements could not be told apart.
func (a *Agent) watchDesired(p *desiredProperty) error {
	a.observe()
	for _, other := range a.observer.properties {
		if other.path == p.path {
			return fmt.Errorf("the desired property %s is acted upon twice; bind it once", p.path)
		}
		if within(p.path, other.path) || within(other.path, p.path) {
			return fmt.Errorf("the desired properties %s and %s overlap; bind one of them", other.path, p.path)
		}
	}
	p.wake = wait.NewSignal()
	a.observer.properties = append(a.observer.properties, p)
	a.reporter.watch(p.path)
	a.background(p.run)
	return nil
}

// within reports whether the property at path is that at outer or below it.
func within(path, outer string) bool { return path == outer || strings.HasPrefix(path, outer+".") }

// checkPath checks that path can be that of a property: names joined by dots.
func checkPath(path string) error {
	for _, name := range strings.Split(path, ".") {
		if name == "" || strings.ContainsAny(name, " $#") {
			return fmt.Errorf("%q is not the path of a desired property, such as telemetry.interval", path)
		}
	}
	return nil
}

// connected reads the twin upon a connection.
func (o *observer) connected(ctx context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.start(ctx)
}

// start reads the twin. o.mu is held.
func (o *observer) start(ctx context.Context) error {
	t, err := o.agent.client.Twin(ctx)
	if err != nil {
		return fmt.Errorf("desired properties: %w", err)
	}
	o.reporter.learn(t.Reported)
	for _, fn := range o.seen {
		fn(t.Reported)
	}
	o.section, o.version, o.started = t.Desired, t.DesiredVersion, true
	for _, p := range o.properties {
		w := wish{lookup(t.Desired, p.path), t.DesiredVersion}
		if !p.isLast(w) && !p.done(w, lookup(t.Reported, p.path)) {
			p.add(w)
		}
	}
	return nil
}

// changed takes a change from the client, which delivers them in order.
func (o *observer) changed(ctx context.Context, d mqttdevice.Desired) {
	ctx, cancel := o.agent.whileRunning(ctx)
	defer cancel()
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.started && d.Version <= o.version:
		return // the twin that was read had it
	case o.started && d.Version == o.version+1:
		if merged, err := twin.Merge(o.section, d.Patch); err == nil {
			before := o.section
			o.section, o.version = merged, d.Version
			for _, p := range o.properties {
				w := wish{lookup(merged, p.path), d.Version}
				absent := w.value == nil && lookup(before, p.path) == nil // what is above it was removed
				if touches(d.Patch, p.path) && !absent {
					p.add(w)
				}
			}
			return
		}
	}
	// If that fails, the next connection tries again.
	_ = o.start(ctx)
}

// touches reports whether a patch is about the property at path.
func touches(patch json.RawMessage, path string) bool {
	for _, name := range strings.Split(path, ".") {
		var members map[string]json.RawMessage
		if !isObject(patch) || json.Unmarshal(patch, &members) != nil {
			return true // something above the property was replaced or removed
		}
		value, ok := members[name]
		if !ok {
			return false
		}
		patch = value
	}
	return true
}

// isLast reports whether w is what is being carried out, or was last: a connection that came back
// brings no news.
func (p *desiredProperty) isLast(w wish) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last != nil && sameValue(p.last.value, w.value) && p.last.version <= w.version
}

// add makes w the next wish to be carried out.
func (p *desiredProperty) add(w wish) {
	p.mu.Lock()
	p.next, p.last = &w, &w
	p.mu.Unlock()
	p.wake.Set()
}

// run carries out wishes until ctx ends.
func (p *desiredProperty) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
		}
		p.mu.Lock()
		w := p.next
		p.next = nil
		p.mu.Unlock()
		if w != nil && ctx.Err() == nil {
			p.act(ctx, *w)
		}
	}
}
