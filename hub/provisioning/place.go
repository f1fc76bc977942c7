package provisioning

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"slices"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/linked"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/hub/store"
)

// Substatuses of a registration that is assigned.
const (
	initialAssignment  = "initialAssignment"
	deviceDataMigrated = "deviceDataMigrated"
	deviceDataReset    = "deviceDataReset"
)

// A contents is what a twin is to have.
type contents struct {
	hub.TwinChange
	reported json.RawMessage
}

// place has the device in the hub that was chosen, with the credential that it has
// proved, and r stored. A device that was elsewhere is there first, then r tells so,
// and what is left to remove is part of r: whatever is cut off in between, the next
// registration goes on with it.
func (g *registering) place(ctx context.Context, c choice, r *record) error {
	had := g.before.Device != ""
	moves := had && r.Place != g.before
	keeps := g.by.Reprovision == nil || g.by.Reprovision.Migrate || c.stays
	initial := contents{TwinChange: g.by.InitialTwin.change(by(g.by))}
	if c.twin != nil {
		initial.TwinChange = c.twin.change(by(g.by))
	}
	twin, reset := initial, had && !keeps
	switch {
	case moves && keeps:
		r.Shown.Substatus = deviceDataMigrated
		reset = true       // over what a move that was cut off has left there
		if c.twin == nil { // the webhook's goes before what the device had
			had, found, err := g.contents(ctx, g.before)
			if err != nil {
				return err
			}
			if reset = found; found {
				twin = had
			}
		}
	case reset:
		r.Shown.Substatus = deviceDataReset
	case had:
		r.Shown.Substatus = g.stored.Shown.Substatus
		if r.Shown.Substatus == "" { // it had failed
			r.Shown.Substatus = initialAssignment
		}
	}
	r.Left = g.stored.without(r.Place).Left
	if moves && !slices.Contains(r.Left, g.before) {
		r.Left = append(r.Left, g.before)
	}
	if r.Place.Hub == "" {
		return g.placeHere(r, twin, reset)
	}
	if err := g.placeThere(ctx, c, r, twin, reset); err != nil {
		return err
	}
	return g.store.Update(string(registrationKey(g.peer.ID)), func(tx *store.Tx) error {
		r.put(tx, &g.stored)
		return nil
	})
}

// by says who changes a twin, for its event.
func by(a attested) string { return a.Kind().String() + " " + a.ID() }

// placeHere makes or changes the device in this hub. The record becomes durable with it.
func (g *registering) placeHere(r *record, twin contents, reset bool) error {
	id := hub.ID{Device: r.Place.Device}
	return g.hub.Update(id.Device, func(tx *hub.Tx) error {
		i, err := tx.Identity(id)
		switch {
		case errors.Is(err, hub.ErrDeviceNotFound):
			t, err := tx.NewTwin(id, twin.TwinChange, twin.reported)
			if err != nil {
				return err
			}
			if _, err := tx.Create(id, hub.IdentitySpec{Auth: g.by.auth, IoTEdge: g.by.Capabilities.IoTEdge}, t); err != nil {
				return err
			}
		case err != nil:
			return err
		default:
			if err := g.change(tx, i, twin, reset); err != nil {
				return err
			}
		}
		r.put(tx.Store, &g.stored)
		return nil
	})
}

// change gives an identity that is there its credential. All else of it is its
// operator's: whether it is disabled, and whether an IoT Edge device.
func (g *registering) change(tx *hub.Tx, i hub.Identity, twin contents, reset bool) error {
	if spec := i.Spec(); !reflect.DeepEqual(spec.Auth, g.by.auth) {
		spec.Auth = g.by.auth
		if _, err := tx.Update(i.ID, spec, hub.Match{Any: true}); err != nil {
			return err
		}
	}
	if reset {
		return tx.ResetTwin(i.ID, twin.TwinChange, twin.reported)
	}
	return nil
}

// placeThere does the same in a hub that is linked, if it is.
func (g *registering) placeThere(ctx context.Context, c choice, r *record, twin contents, reset bool) error {
	if c.linked == nil {
		return nil // it stays where it is; nothing can be done about it
	}
	d, found, err := c.linked.Device(ctx, r.Place.Device)
	if err != nil {
		return failedAt(err)
	}
	switch {
	case !found:
		d = linked.Device{ID: r.Place.Device, Status: string(hub.StatusEnabled)}
		d.Capabilities = words.MustMarshal(g.by.Capabilities)
	case sameAuthentication(d.Authentication, g.by.auth) && !reset:
		return nil
	}
	d.Authentication = words.MustMarshal(g.by.auth)
	if found && !reset {
		d.Tags, d.Properties.Desired, d.Properties.Reported = nil, nil, nil
		if _, err := c.linked.Update(ctx, d); err != nil {
			return failedAt(err)
		}
		return nil
	}
	d.Tags, d.Properties.Desired, d.Properties.Reported = twin.Tags, twin.Desired, twin.reported
	if err := c.linked.Put(ctx, d); err != nil {
		return failedAt(err)
	}
	return nil
}

func sameAuthentication(have json.RawMessage, want hub.Authentication) bool {
	var a hub.Authentication
	return json.Unmarshal(have, &a) == nil && reflect.DeepEqual(a, want)
}

// failedAt is what a registration fails with because of a linked hub, whose errors may
// be told to the device.
func failedAt(err error) error { return errAllocation.With("%v", err) }

// contents returns what the twin of a device has, if it is there.
func (g *registering) contents(ctx context.Context, p place) (c contents, found bool, err error) {
	c.By = by(g.by)
	if p.Hub == "" {
		v, err := g.hub.Twin(hub.ID{Device: p.Device})
		if errors.Is(err, hub.ErrDeviceNotFound) {
			return c, false, nil
		}
		c.Tags, c.Desired, c.reported = v.Contents()
		return c, err == nil, err
	}
	h := g.linkedHub(p.Hub)
	if h == nil {
		return c, false, nil
	}
	d, found, err := h.Device(ctx, p.Device)
	if err != nil {
		return c, false, failedAt(err)
	}
	c.Tags, c.Desired, c.reported = d.Tags, d.Properties.Desired, d.Properties.Reported
	return c, found, nil
}

// settleLeft removes the device from where it was. What cannot be removed now is
// tried again by the next registration.
func (g *registering) settleLeft(ctx context.Context, r record) record {
	for _, p := range slices.Clone(r.Left) {
		if err := g.leave(ctx, p, r); err != nil {
			g.tell("a device could not be removed from where it was", g.peer, g.by, err.Error(), p)
			continue
		}
		less := r.without(p)
		if p.Hub != "" {
			err := g.store.Update(string(registrationKey(g.peer.ID)), func(tx *store.Tx) error {
				less.put(tx, &r)
				return nil
			})
			if err != nil {
				return r
			}
		}
		r = less
	}
	return r
}

// without returns r without a place that the device was in.
func (r record) without(p place) record {
	r.Left = slices.DeleteFunc(slices.Clone(r.Left), func(one place) bool { return one == p })
	return r
}

// leave removes the device from one place, from this hub together with the record of it.
func (g *registering) leave(ctx context.Context, p place, r record) error {
	if p.Hub != "" {
		if h := g.linkedHub(p.Hub); h != nil {
			return h.Delete(ctx, p.Device)
		}
		return nil // it is not linked any more
	}
	return g.hub.Update(p.Device, func(tx *hub.Tx) error {
		err := tx.Delete(hub.ID{Device: p.Device}, hub.Match{})
		if err != nil && !errors.Is(err, hub.ErrDeviceNotFound) {
			return err
		}
		less := r.without(p)
		less.put(tx.Store, &r)
		return nil
	})
}
