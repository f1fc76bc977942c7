package console

import (
	"context"
	"sync"
	"time"

	"github.com/iotdm/iotdm/hubrest"
)

// A hub counts the twins of all metrics before it answers with its configurations, which takes seconds where there are a
// million devices. Pages show what it answered last, if it takes long, and how old that is.
const (
	patience      = 80 * time.Millisecond // of a page that has something to show
	firstPatience = time.Second           // of one that has not
	goodFor       = 10                    // times as long as the answer took, it is not asked for again
	longestList   = 2 * time.Minute       // that an answer may take
)

// A configurationList is the configurations of the hub as they were answered last.
type configurationList struct {
	mu      sync.Mutex
	list    []hubrest.Configuration
	err     error
	at      time.Time // when the answer came; zero: there is none
	took    time.Duration
	asked   chan struct{} // is closed when the answer under way has come; nil: none is
	outdone bool          // something was changed since it was asked for
}

// allConfigurations returns the configurations, and when that was the answer: zero if the hub is still counting and there
// was none before.
func (c *Console) allConfigurations(ctx context.Context) ([]hubrest.Configuration, time.Time, error) {
	l := &c.configured
	l.mu.Lock()
	if l.asked == nil && (l.at.IsZero() || l.err != nil || c.now().Sub(l.at) > goodFor*l.took) {
		c.askConfigurations()
	}
	asked, wait := l.asked, patience
	if l.at.IsZero() || l.err != nil {
		wait = firstPatience
	}
	l.mu.Unlock()
	if asked != nil {
		select {
		case <-asked:
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, time.Time{}, ctx.Err()
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.list, l.at, l.err
}

// askConfigurations asks the hub, and goes on doing so while there are changes meanwhile. The lock is held.
func (c *Console) askConfigurations() {
	l := &c.configured
	asked := make(chan struct{})
	l.asked, l.outdone = asked, false
	c.wg.Go(func() {
		ctx, cancel := context.WithTimeout(c.ctx, longestList)
		defer cancel()
		began := c.now()
		list, err := c.opt.Client.Configurations(ctx, 0)
		l.mu.Lock()
		defer l.mu.Unlock()
		defer close(asked)
		l.asked = nil
		if l.outdone && c.ctx.Err() == nil {
			return // whoever wants to know asks anew
		}
		l.list, l.err, l.at = list, err, c.now()
		l.took = l.at.Sub(began)
	})
}

// forgetConfigurations is for a change of theirs.
func (c *Console) forgetConfigurations() {
	l := &c.configured
	l.mu.Lock()
	defer l.mu.Unlock()
	l.at, l.list, l.err, l.outdone = time.Time{}, nil, nil, true
}

// oneConfiguration returns a configuration, as it was answered last if the hub takes long to count its metrics.
func (c *Console) oneConfiguration(ctx context.Context, id string) (hubrest.Configuration, time.Time, error) {
	l := &c.configured
	l.mu.Lock()
	at := l.at
	var known *hubrest.Configuration
	for i := range l.list {
		if l.list[i].ID == id {
			known = &l.list[i]
		}
	}
	l.mu.Unlock()
	if known == nil {
		one, err := c.opt.Client.Configuration(ctx, id)
		return one, c.now(), err
	}
	soon, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	one, err := c.opt.Client.Configuration(soon, id)
	if err != nil && soon.Err() != nil && ctx.Err() == nil {
		return *known, at, nil
	}
	return one, c.now(), err
}
