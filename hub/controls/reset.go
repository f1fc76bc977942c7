package controls

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/iotdm/iotdm/hub"
)

// Reset makes the hub what it was when it first began to serve: its seed, and
// nothing else. Connections of devices end, and so do requests that wait; those
// that come meanwhile wait for it. What happened before has left nothing, and
// goes on nowhere: no device, message or job, no event, no fault. The clock shows
// the machine's time.
//
// Readers of events and other connections of services stay, and the events that
// come have the next numbers. Policies, certificates, consumer groups, snapshots
// and what is counted in the metrics are as before.
//
// It takes milliseconds. After an error the hub is as it was, unless that says
// otherwise.
func (c *Controls) Reset(ctx context.Context) error { return c.reset(ctx, c.opt.Seed) }

// ResetTo is Reset to another seed, in YAML or JSON, this time. An empty one is
// nothing. Policies and consumer groups that it has must be those of the hub,
// which has them as long as it runs.
//
// Errors: hub.ErrArgumentInvalid with the line and the name of what is wrong in
// the seed, and those of Reset.
func (c *Controls) ResetTo(ctx context.Context, seed []byte) error {
	fill, err := c.opt.ParseSeed(seed)
	if err != nil {
		return hub.ErrArgumentInvalid.With("%v", err)
	}
	return c.reset(ctx, fill)
}

func (c *Controls) reset(ctx context.Context, seed func() error) error {
	return c.change(func() error {
		nothing := func(func(k, v []byte) bool) {}
		err := c.replace(ctx, nothing, func() error {
			c.opt.Hub.ClearFaults()
			c.opt.Hub.Journal().Clear()
			return c.move(-c.opt.Clock.Ahead()) // before there are new events
		}, seed)
		if err != nil {
			return fmt.Errorf("reset the hub: %w", err)
		}
		return nil
	})
}

// replace replaces the hub's state by records. It has forget called to forget
// what else there was, and fill to complete the new state. The caller has c.mu.
func (c *Controls) replace(ctx context.Context, records iter.Seq2[[]byte, []byte], forget, fill func() error) error {
	jobs, configurations := c.opt.Jobs, c.opt.Configurations
	return c.opt.Hub.Replace(ctx, hub.Replacement{
		Records: records,
		Suspend: func() {
			jobs.Suspend()
			configurations.Suspend()
		},
		Reload: func() error {
			return errors.Join(forget(), jobs.Reload(), configurations.Reload(), c.opt.Provisioning.Reload())
		},
		Fill: fill,
		Resume: func() {
			configurations.Resume()
			jobs.Resume()
		},
	})
}
