package hub

import (
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/iotdm/iotdm/hub/internal/disk"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/hub/store"
	"github.com/iotdm/iotdm/sas"
)

// A Tx changes the identities and twins of one device, the device's own and
// those of its modules, in one step: all of it becomes durable, or none. It is
// the only way to change them. What must follow from a change is decided here
// and nowhere else: what is stored with it, its version and etag, the event of
// it, who is told, whose connection ends, and what is counted.
//
// It is valid until the function returns that Server.Update calls with it, and
// for one goroutine.
type Tx struct {
	// Store is the same step, for what else is to change with it.
	Store *store.Tx

	hub     *Server
	now     time.Time
	changes []change
	first   [1]change // most have one
}

// A change is one change of a Tx. What it leads to outside the store follows
// when it is durable.
type change struct {
	kind  changeKind
	id    ID
	twin  Twin // as the change has left it
	write TwinWrite
}

type changeKind uint8

const (
	created changeKind = iota
	updated            // the identity
	deleted
	written // the twin
)

// Update runs fn with a Tx of the device, and returns when the changes are
// durable and known to those on this node that they concern. Updates of one
// device run one after the other. An error of fn undoes all and is returned.
//
// In a cluster fn is run again if another node was faster: it leaves nothing
// behind but what it does by the Tx, and what the next run does over.
//
// Errors besides: those of store.DB.Update, such as store.ErrFull.
func (s *Server) Update(device string, fn func(*Tx) error) error {
	return s.store.Update(device, func(st *store.Tx) error {
		tx := &Tx{Store: st, hub: s, now: s.Now()}
		tx.changes = tx.first[:0]
		if err := fn(tx); err != nil {
			return err
		}
		for i := range tx.changes {
			tx.tellChange(&tx.changes[i])
		}
		tx.tellChanges()
		return nil
	})
}

// Now returns the time of the changes.
func (tx *Tx) Now() time.Time { return tx.now }

// Identity returns an identity as the Tx has left it.
//
// Errors: ErrDeviceNotFound, ErrModuleNotFound.
func (tx *Tx) Identity(id ID) (Identity, error) {
	if id.Module != "" {
		if _, err := tx.Identity(ID{Device: id.Device}); err != nil {
			return Identity{}, err
		}
	}
	data, err := tx.Store.Get(id.identityKey())
	return decodeIdentity(id, data, err)
}

// Twin returns a twin as the Tx has left it.
//
// Errors: ErrDeviceNotFound or ErrModuleNotFound, whichever id is of.
func (tx *Tx) Twin(id ID) (Twin, error) {
	data, err := tx.Store.Get(id.twinKey())
	return twinOf(id, data, err)
}

// moduleIDs returns the modules of the device as the Tx has left them.
func (tx *Tx) moduleIDs(device string) (ids []ID, err error) {
	prefix := disk.Below(disk.Module, device)
	err = tx.hub.store.Scan(prefix, store.PrefixEnd(prefix), func(k, _ []byte) error {
		ids = append(ids, keyID(k))
		return nil
	})
	for _, c := range tx.changes {
		if c.kind == created && c.id.Module != "" && !slices.Contains(ids, c.id) {
			ids = append(ids, c.id)
		}
	}
	return slices.DeleteFunc(ids, func(id ID) bool {
		_, err := tx.Store.Get(id.identityKey())
		return errors.Is(err, store.ErrNotFound)
	}), err
}

// Create registers an identity with its twin; nil is that of a new identity.
// The device of a module must be there; whether it may have another module is
// for the caller to know.
//
// Errors: ErrDeviceAlreadyExists, ErrModuleAlreadyExists, ErrInvalidDeviceScope.
func (tx *Tx) Create(id ID, spec IdentitySpec, t *Twin) (Identity, error) {
	switch _, err := tx.Store.Get(id.identityKey()); {
	case err == nil && id.Module == "":
		return Identity{}, ErrDeviceAlreadyExists.With("A device with ID '%s' is already registered.", id.Device)
	case err == nil:
		return Identity{}, ErrModuleAlreadyExists.With("Device %s already contains Module %s.", id.Device, id.Module)
	case !errors.Is(err, store.ErrNotFound):
		return Identity{}, err
	}
	i := Identity{ID: id, GenerationID: words.Ticks(tx.now), Version: firstVersion()}
	i.apply(spec)
	if err := tx.settleEdge(&i, spec, Identity{}); err != nil {
		return Identity{}, err
	}
	tx.add(i, t)
	tx.switchEdge(i, Identity{})
	return i, nil
}

func (tx *Tx) add(i Identity, t *Twin) {
	if t == nil {
		blank := newTwin(i.ID, tx.now)
		t = &blank
	}
	tx.Store.Set(i.identityKey(), i.encode())
	t.store(tx.Store, i.ID)
	tx.note(change{kind: created, id: i.ID, twin: *t})
}

// Update replaces what can be changed of an identity.
//
// Errors: ErrDeviceNotFound, ErrModuleNotFound, ErrPreconditionFailed,
// ErrInvalidDeviceScope, ErrInvalidOperation.
func (tx *Tx) Update(id ID, spec IdentitySpec, m Match) (Identity, error) {
	i, err := tx.Identity(id)
	if err != nil {
		return Identity{}, err
	}
	if m.ETag != "" && m.ETag != i.ETag() {
		return Identity{}, ErrPreconditionFailed
	}
	before := i
	i.apply(spec)
	if i.Status != before.Status {
		i.StatusUpdated = tx.now.UTC()
	}
	if err := tx.settleEdge(&i, spec, before); err != nil {
		return Identity{}, err
	}
	i = tx.putIdentity(i)
	tx.switchEdge(i, before)
	return i, nil
}

// regenerate gives an identity new keys.
func (tx *Tx) regenerate(id ID, primary, secondary bool) (Identity, error) {
	i, err := tx.Identity(id)
	if err != nil {
		return Identity{}, err
	}
	if i.Auth.Type != AuthSAS {
		return Identity{}, ErrInvalidOperation.With("the identity's authentication type is %s, not sas", i.Auth.Type)
	}
	if primary {
		i.Auth.SymmetricKey.Primary = sas.NewKey()
	}
	if secondary {
		i.Auth.SymmetricKey.Secondary = sas.NewKey()
	}
	return tx.putIdentity(i), nil
}

func (tx *Tx) putIdentity(i Identity) Identity {
	i.Version++
	tx.Store.Set(i.identityKey(), i.encode())
	tx.note(change{kind: updated, id: i.ID})
	return i
}

// Delete removes an identity with its twin and all that hangs on it: of a
// device the modules, and the messages that wait.
//
// Errors: ErrDeviceNotFound, ErrModuleNotFound, ErrPreconditionFailed.
func (tx *Tx) Delete(id ID, m Match) error {
	i, err := tx.Identity(id)
	if err != nil {
		return err
	}
	if m.ETag != "" && m.ETag != i.ETag() {
		return ErrPreconditionFailed
	}
	if id.Module == "" {
		// They go with it, and before it: an event of a module never follows
		// that of the end of its device.
		modules, err := tx.moduleIDs(id.Device)
		if err != nil {
			return err
		}
		for _, module := range modules {
			tx.remove(module)
		}
		tx.hub.deleteQueue(tx.Store, id.Device)
	}
	tx.remove(id)
	return nil
}

func (tx *Tx) remove(id ID) {
	// One that cannot be read goes too, with what is known of it.
	t, _ := tx.Twin(id)
	t.remove(tx.Store, id)
	tx.Store.Delete(id.identityKey())
	for _, prefix := range []string{disk.Configured, disk.Activity, disk.Refusal, disk.Session} {
		tx.Store.Delete(disk.Of(prefix, id.Device, id.Module))
	}
	if tx.hub.peers != nil {
		if p, _ := readPresence(tx.Store.Get, id); p.node != 0 {
			tx.endPresence(id)
		}
	}
	tx.note(change{kind: deleted, id: id, twin: t})
}

// A TwinWrite says of a write of a twin who made it and what it was: that
// decides what follows. Patches are as they were merged, and nil where a
// section was left alone.
type TwinWrite struct {
	Side Side
	By   string // who it was, for the event: such as "policy service"; empty is nobody

	Tags, Desired, Reported json.RawMessage

	// Replaced is a write of all tags and desired properties. Desired is then
	// the patch that leads there from what was before.
	Replaced bool
}

// A Side is who may write a twin.
type Side uint8

// The sides, and what follows a write of each besides its event. The version of
// a twin counts the writes of all, and its etag those that the service made, as
// recorded from the service; that a configuration's count as such when it sets
// something is documented ("$lastUpdatedBy"), the rest of it is assumed.
const (
	// ByService is a change of tags or desired properties. The device is told
	// of these.
	ByService Side = iota
	// ByConfiguration is the same by automatic configurations. A write without
	// Desired changes only what the twin shows of them: nobody is told.
	ByConfiguration
	// ByDevice is a patch of the reported properties.
	ByDevice
	// byConnecting notes the Plug and Play model that the device has announced.
	// It counts as no write, and has no event: assumed. Conditions of
	// configurations and queries can name the model, so that the twin has
	// changed all the same.
	byConnecting
)

// PutTwin stores a twin of the Tx that w has changed, and gives it its new
// version and etag.
func (tx *Tx) PutTwin(id ID, t *Twin, w TwinWrite) {
	switch w.Side {
	case ByService:
		t.version++
		t.etag++
	case ByConfiguration:
		t.version++
		if w.Desired != nil {
			t.etag++
		}
	case ByDevice:
		t.version++
	}
	t.store(tx.Store, id)
	tx.note(change{kind: written, id: id, twin: *t, write: w})
}

func (tx *Tx) note(c change) { tx.changes = append(tx.changes, c) }
