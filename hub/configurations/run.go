package configurations

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/disk"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/hub/query"
	"github.com/iotdm/iotdm/hub/store"
	"github.com/iotdm/iotdm/internal/wait"
)

// A state is the automatic configurations of the hub, and the twins
// that have to be looked at because they, or a configuration, have changed.
type state struct {
	wake  wait.Signal // there may be something to do
	leads func() bool // this node applies them; on another nothing waits to be looked at

	mu      sync.Mutex // guards what follows
	all     []*active
	dirty   map[hub.ID]struct{} // twins to look at
	changed map[string]struct{} // configurations whose twins have to be found
	busy    bool                // something is being done
	taken   int                 // twins that take has handed out, which are being looked at
	since   time.Time           // when the oldest of what waits came; zero if nothing does
	doing   time.Time           // when the oldest of what is being done came; zero if nothing is
	idle    *sync.Cond          // there is nothing to do
}

// An active is a configuration with its condition parsed. It does
// not change.
type active struct {
	Configuration
	target *query.Query // nil: no twin
}

func newActive(c Configuration) (*active, error) {
	target, err := c.target()
	return &active{c, target}, err
}

// Bounds of applying configurations.
const (
	// interval is how often every twin is looked at again: conditions
	// may ask for what changes without a write, such as connectionState.
	interval  = 5 * time.Minute
	parallel  = 64 // twins at the same time, which share the waits for the disk
	batchSize = 1024
)

func (c *state) init(leads func() bool) {
	c.leads = leads
	c.wake = wait.NewSignal()
	c.idle = sync.NewCond(&c.mu)
}

// forget begins anew, without configurations.
func (c *state) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = nil
	c.anewLocked()
}

// anew forgets what has changed: all twins will be looked at.
func (c *state) anew() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.anewLocked()
}

// anewLocked is anew for a caller that holds c.mu.
func (c *state) anewLocked() {
	c.dirty, c.changed = make(map[hub.ID]struct{}), make(map[string]struct{})
	c.busy = true // until all twins have been looked at once
	c.taken, c.since, c.doing = 0, time.Time{}, time.Now()
}

// list returns the configurations from the one that counts least.
func (c *state) list() []*active {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all // it is replaced, never changed
}

// count returns how many IoT Edge deployments, or other configurations, there are.
func (c *state) count(edge bool) (n int) {
	for _, a := range c.list() {
		if a.Content.edge() == edge {
			n++
		}
	}
	return n
}

func (c *state) put(a *active) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(without(c.all, a.ID), a)
	slices.SortFunc(c.all, func(a, b *active) int {
		return cmp.Or(cmp.Compare(a.Priority, b.Priority), a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
	})
	c.changeLocked(a.ID)
}

func (c *state) remove(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = without(c.all, id)
	c.changeLocked(id)
}

// changeLocked has the twins of a configuration found. The caller holds c.mu.
func (c *state) changeLocked(id string) {
	if c.leads() {
		c.changed[id] = struct{}{}
		c.wakeLocked()
	}
}

func without(all []*active, id string) []*active {
	return slices.DeleteFunc(slices.Clone(all), func(a *active) bool { return a.ID == id })
}

// touch has a twin looked at because it has changed.
func (c *state) touch(id hub.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.all) == 0 || !c.leads() {
		return
	}
	c.dirty[id] = struct{}{}
	c.wakeLocked()
}

// wakeLocked says that there is something to do. The caller holds c.mu.
func (c *state) wakeLocked() {
	if c.since.IsZero() {
		c.since = time.Now() // the machine's: how long something takes
	}
	c.wake.Set()
}

// lag returns since when changes wait to be applied, zero if none does, and how
// many twins and configurations have changed.
func (c *state) lag() (since time.Time, twins, configurations int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.leads() {
		return time.Time{}, 0, 0
	}
	return cmp.Or(c.doing, c.since), len(c.dirty) + c.taken, len(c.changed)
}

// take returns what is to be done.
func (c *state) take() (dirty map[hub.ID]struct{}, changed map[string]struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	dirty, changed = c.dirty, c.changed
	c.taken, c.doing, c.since = len(dirty), c.since, time.Time{}
	c.busy = len(dirty) > 0 || len(changed) > 0
	if !c.busy {
		c.idle.Broadcast()
		return nil, nil
	}
	c.dirty, c.changed = make(map[hub.ID]struct{}), make(map[string]struct{})
	return dirty, changed
}

// Wait returns when all changes of configurations and twins until
// now have been applied, or when ctx ends, with its error.
func (e *Engine) Wait(ctx context.Context) error {
	_, err := hub.AskLeader(ctx, e.hub, verbWait, struct{}{}, func(ctx context.Context, _ struct{}) (struct{}, error) { return struct{}{}, e.wait(ctx) })
	return err
}

// verbWait is what another node asks.
const verbWait = "configurations.wait"

func (e *Engine) wait(ctx context.Context) error {
	if err := e.store.Barrier(ctx); err != nil { // another node may know of more
		return err
	}
	c := &e.state
	c.mu.Lock()
	defer c.mu.Unlock()
	defer context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.idle.Broadcast()
	})()
	for c.busy || len(c.dirty)+len(c.changed) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		c.idle.Wait()
	}
	return nil
}

// configure applies configurations while this node leads, until the server closes.
func (e *Engine) configure() {
	tick := e.clock.NewTicker(interval)
	defer tick.Stop()
	led := false
	everything := true // what changed in the last moments before a crash is not known
	for {
		if !led && e.hub.Leads() { // since just now, or since the start
			e.state.anew()
			led, everything = true, true
		}
		if led && everything {
			if err := e.configureAll(); err != nil && e.ctx.Err() == nil {
				e.failed.Inc()
				e.log.Warn("configuring the twins", words.LogReason, err)
			}
		}
		for led {
			dirty, changed := e.state.take()
			if len(dirty)+len(changed) == 0 {
				break
			}
			for id := range changed {
				if err := e.configureChanged(id); err != nil && e.ctx.Err() == nil {
					e.failed.Inc()
					e.log.Warn("applying a configuration", words.LogConfiguration, id, words.LogReason, err)
				}
			}
			batch := make([]hub.ID, 0, len(dirty))
			for id := range dirty {
				batch = append(batch, id)
			}
			e.configureTwins(batch)
			if e.ctx.Err() != nil {
				return
			}
		}
		select {
		case <-e.state.wake:
			everything = false
		case <-tick.C:
			everything = true
		case <-e.ctx.Done():
			return
		}
	}
}

// configureAll looks at all twins. Without configurations these are only those
// that still show one, which the hub may have stopped too early to take back.
func (e *Engine) configureAll() error {
	which := ""
	if len(e.state.list()) == 0 {
		if found, err := e.anyConfigured(); err != nil || !found {
			return err
		}
		which = " WHERE IS_DEFINED(configurations)"
	}
	for _, text := range []string{"SELECT * FROM devices", "SELECT * FROM devices.modules"} {
		if err := e.configureFound(text + which); err != nil {
			return err
		}
	}
	return nil
}

// anyConfigured reports whether there is a twin in which a configuration has set
// something.
func (e *Engine) anyConfigured() (found bool, err error) {
	err = e.store.Scan([]byte(disk.Configured), store.PrefixEnd([]byte(disk.Configured)), func(_, _ []byte) error {
		found = true
		return store.ErrStop
	})
	return found, err
}

// configureChanged looks at the twins that a configuration concerns, or has
// concerned.
func (e *Engine) configureChanged(id string) error {
	for _, from := range []string{"SELECT * FROM devices", "SELECT * FROM devices.modules"} {
		if err := e.configureFound(from + " WHERE " + shows(id)); err != nil {
			return err
		}
	}
	for _, c := range e.state.list() {
		if c.ID == id && c.target != nil {
			return e.configureMatching(c.newcomers())
		}
	}
	return nil
}

// shows returns the condition that a twin shows a configuration.
func shows(id string) string { return "IS_DEFINED(configurations.[[" + id + "]])" }

// newcomers returns the query for the twins of the configuration that do not
// show it yet. The twins of a deployment, which show it elsewhere, are all of
// them.
func (c *active) newcomers() *query.Query {
	if c.Content.edge() {
		return c.target
	}
	text := "SELECT * FROM " + c.target.From().String() + " WHERE NOT " + shows(c.ID)
	if condition := bareCondition(c.TargetCondition); condition != "*" {
		text += " AND (" + condition + ")"
	}
	q, err := query.Parse(text)
	if err != nil { // it is too long by now
		return c.target
	}
	return q
}

func (e *Engine) configureFound(text string) error {
	q, err := query.Parse(text)
	if err != nil {
		return err
	}
	return e.configureMatching(q)
}

func (e *Engine) configureMatching(q *query.Query) error {
	batch := make([]hub.ID, 0, batchSize)
	defer func() { e.configureTwins(batch) }()
	for id, err := range e.hub.Matching(e.ctx, q) {
		if err != nil {
			return err
		}
		if batch = append(batch, id); id.Module == hub.EdgeAgent {
			batch = append(batch, hub.ID{Device: id.Device}) // for the other modules
		}
		if len(batch) >= batchSize {
			e.configureTwins(batch)
			batch = batch[:0]
		}
	}
	return nil
}

// configureTwins applies the configurations to twins, side by side.
func (e *Engine) configureTwins(ids []hub.ID) {
	var turns sync.WaitGroup
	slots := make(chan struct{}, parallel)
	for _, id := range ids {
		if e.ctx.Err() != nil {
			break
		}
		slots <- struct{}{}
		turns.Go(func() {
			defer func() { <-slots }()
			if err := e.configureTwin(id); err != nil && !errors.Is(err, context.Canceled) {
				e.failed.Inc()
				e.log.Warn("applying configurations to a twin", words.LogID, id.String(), words.LogReason, err)
			}
		})
	}
	turns.Wait()
}
