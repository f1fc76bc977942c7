package hub

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/iotdm/iotdm/hub/query"
	"github.com/iotdm/iotdm/hub/store"
)

// configurations are the automatic configurations of the hub, and the twins
// that have to be looked at because they, or a configuration, have changed.
type configurations struct {
	wake chan struct{} // holds a token when there may be something to do

	mu      sync.Mutex // guards what follows
	all     []*activeConfiguration
	dirty   map[ID]struct{}     // twins to look at
	changed map[string]struct{} // configurations whose twins have to be found
	busy    bool                // something is being done
	idle    *sync.Cond          // there is nothing to do
}

// An activeConfiguration is a configuration with its condition parsed. It does
// not change.
type activeConfiguration struct {
	Configuration
	target *query.Query // nil: no twin
}

func newActiveConfiguration(c Configuration) (*activeConfiguration, error) {
	target, err := c.target()
	return &activeConfiguration{c, target}, err
}

// Bounds of applying configurations.
const (
	// configureInterval is how often every twin is looked at again: conditions
	// may ask for what changes without a write, such as connectionState.
	configureInterval = 5 * time.Minute
	configureParallel = 64 // twins at the same time, which share the waits for the disk
	configureBatch    = 1024
)

func (c *configurations) init() {
	c.wake = make(chan struct{}, 1)
	c.dirty, c.changed = make(map[ID]struct{}), make(map[string]struct{})
	c.busy = true // until all twins have been looked at once
	c.idle = sync.NewCond(&c.mu)
}

func (c *configurations) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// list returns the configurations from the one that counts least.
func (c *configurations) list() []*activeConfiguration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all // it is replaced, never changed
}

// count returns how many IoT Edge deployments, or other configurations, there are.
func (c *configurations) count(edge bool) (n int) {
	for _, a := range c.list() {
		if a.Content.edge() == edge {
			n++
		}
	}
	return n
}

func (c *configurations) put(a *activeConfiguration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(without(c.all, a.ID), a)
	slices.SortFunc(c.all, func(a, b *activeConfiguration) int {
		return cmp.Or(cmp.Compare(a.Priority, b.Priority), a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
	})
	c.changed[a.ID] = struct{}{}
	c.signal()
}

func (c *configurations) remove(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = without(c.all, id)
	c.changed[id] = struct{}{}
	c.signal()
}

func without(all []*activeConfiguration, id string) []*activeConfiguration {
	return slices.DeleteFunc(slices.Clone(all), func(a *activeConfiguration) bool { return a.ID == id })
}

// touch has a twin looked at because it has changed.
func (c *configurations) touch(id ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.all) == 0 {
		return
	}
	c.dirty[id] = struct{}{}
	c.signal()
}

// take returns what is to be done.
func (c *configurations) take() (dirty map[ID]struct{}, changed map[string]struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	dirty, changed = c.dirty, c.changed
	c.busy = len(dirty) > 0 || len(changed) > 0
	if !c.busy {
		c.idle.Broadcast()
		return nil, nil
	}
	c.dirty, c.changed = make(map[ID]struct{}), make(map[string]struct{})
	return dirty, changed
}

// WaitConfigurations returns when all changes of configurations and twins until
// now have been applied, or when ctx ends, with its error.
func (s *Server) WaitConfigurations(ctx context.Context) error {
	c := &s.configurations
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

// configure applies configurations until the server closes.
func (s *Server) configure() {
	tick := time.NewTicker(configureInterval)
	defer tick.Stop()
	everything := true // what changed in the last moments before a crash is not known
	for {
		if everything {
			if err := s.configureAll(); err != nil && s.ctx.Err() == nil {
				s.log.Warn("configuring the twins", logReason, err)
			}
		}
		for {
			dirty, changed := s.configurations.take()
			if len(dirty)+len(changed) == 0 {
				break
			}
			for id := range changed {
				if err := s.configureChanged(id); err != nil && s.ctx.Err() == nil {
					s.log.Warn("applying a configuration", logConfiguration, id, logReason, err)
				}
			}
			batch := make([]ID, 0, len(dirty))
			for id := range dirty {
				batch = append(batch, id)
			}
			s.configureTwins(batch)
			if s.ctx.Err() != nil {
				return
			}
		}
		select {
		case <-s.configurations.wake:
			everything = false
		case <-tick.C:
			everything = true
		case <-s.ctx.Done():
			return
		}
	}
}

// configureAll looks at all twins. Without configurations these are only those
// that still show one, which the hub may have stopped too early to take back.
func (s *Server) configureAll() error {
	which := ""
	if len(s.configurations.list()) == 0 {
		if found, err := s.anyConfigured(); err != nil || !found {
			return err
		}
		which = " WHERE IS_DEFINED(configurations)"
	}
	for _, text := range []string{"SELECT * FROM devices", "SELECT * FROM devices.modules"} {
		if err := s.configureFound(text + which); err != nil {
			return err
		}
	}
	return nil
}

// anyConfigured reports whether there is a twin in which a configuration has set
// something.
func (s *Server) anyConfigured() (found bool, err error) {
	err = s.store.Scan([]byte(configuredPrefix), prefixEnd([]byte(configuredPrefix)), func(_, _ []byte) error {
		found = true
		return store.ErrStop
	})
	return found, err
}

// configureChanged looks at the twins that a configuration concerns, or has
// concerned.
func (s *Server) configureChanged(id string) error {
	for _, from := range []string{"SELECT * FROM devices", "SELECT * FROM devices.modules"} {
		if err := s.configureFound(from + " WHERE " + shows(id)); err != nil {
			return err
		}
	}
	for _, c := range s.configurations.list() {
		if c.ID == id && c.target != nil {
			return s.configureMatching(c.newcomers())
		}
	}
	return nil
}

// shows returns the condition that a twin shows a configuration.
func shows(id string) string { return "IS_DEFINED(configurations.[[" + id + "]])" }

// newcomers returns the query for the twins of the configuration that do not
// show it yet. The twins of a deployment, which show it elsewhere, are all of
// them.
func (c *activeConfiguration) newcomers() *query.Query {
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

func (s *Server) configureFound(text string) error {
	q, err := query.Parse(text)
	if err != nil {
		return err
	}
	return s.configureMatching(q)
}

func (s *Server) configureMatching(q *query.Query) error {
	batch := make([]ID, 0, configureBatch)
	err := s.matching(s.ctx, q, func(id ID) error {
		if batch = append(batch, id); id.Module == edgeAgent {
			batch = append(batch, ID{Device: id.Device}) // for the other modules
		}
		if len(batch) >= configureBatch {
			s.configureTwins(batch)
			batch = batch[:0]
		}
		return nil
	})
	s.configureTwins(batch)
	return err
}

// configureTwins applies the configurations to twins, side by side.
func (s *Server) configureTwins(ids []ID) {
	var turns sync.WaitGroup
	slots := make(chan struct{}, configureParallel)
	for _, id := range ids {
		if s.ctx.Err() != nil {
			break
		}
		slots <- struct{}{}
		turns.Go(func() {
			defer func() { <-slots }()
			if err := s.configureTwin(id); err != nil && !errors.Is(err, context.Canceled) {
				s.log.Warn("applying configurations to a twin", logID, id.String(), logReason, err)
			}
		})
	}
	turns.Wait()
}
