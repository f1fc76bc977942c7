package provisioning

import (
	"context"
	"errors"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/store"
	"github.com/iotdm/iotdm/internal/wait"
)

// Register registers a device: it checks the credential again, chooses a hub, and
// has identity, twin and registration stored before it returns. What the enrollment
// or a hub does not allow is no error, but a registration that has failed.
//
// It is called between hub.Server.Enter and its end, so that the state is not replaced
// meanwhile.
//
// Errors: those of Authenticate; context.Cause(ctx); of a hub under test that of a
// fault, and hub.ErrDropped if nothing is to be answered.
func (s *Service) Register(ctx context.Context, p Peer, r Request) (Operation, error) {
	by, err := s.attest(p)
	if err != nil {
		return Operation{}, err
	}
	if err := s.meetFault(ctx, p); err != nil {
		return Operation{}, err
	}
	done, waited, err := s.takeTurn(ctx, p.ID)
	if err != nil {
		return Operation{}, err
	}
	defer done()
	if waited { // for an instant, or for another hub: much may have changed
		if by, err = s.attest(p); err != nil {
			return Operation{}, err
		}
	}
	stored, err := readRecord(p.ID, s.store.Get)
	if err != nil && !errors.Is(err, ErrRegistrationNotFound) {
		return Operation{}, err
	}
	if by.Status == hub.StatusDisabled {
		return s.disabled(p, by, newOperation()), nil
	}
	g := registering{Service: s, peer: p, request: r, by: by, stored: stored, now: s.hub.Now()}
	if stored.Source == by.source() {
		g.before = stored.Place
	}
	registered, err := g.run(ctx)
	if err != nil {
		return Operation{}, err
	}
	return s.operation(registered), nil
}

// meetFault does to a registration what a fault of a hub under test wants.
func (s *Service) meetFault(ctx context.Context, p Peer) error {
	f := s.hub.RegistrationFault(p.ID)
	switch {
	case f == nil:
		return nil
	case f.Drop:
		return hub.ErrDropped
	case f.Refusal != nil:
		return f.Refusal
	}
	return wait.For(ctx, f.Latency)
}

// disabled is what a device gets whose enrollment is disabled. Its registration
// stays as it is.
func (s *Service) disabled(p Peer, by attested, operation string) Operation {
	now := instant(s.hub.Now())
	shown := Registration{
		RegistrationID: p.ID, Created: now, Updated: now, ETag: registrationETag(), Status: Disabled,
		ErrorCode: 403001, ErrorMessage: "The enrollment is disabled", // assumed
	}
	shown.attestedBy(by)
	s.metrics.ended(Disabled)
	s.tell("a registration is refused: the enrollment is disabled", p, by, "disabled")
	return Operation{ID: operation, Status: Disabled, Registration: &shown}
}

func (r *Registration) attestedBy(by attested) {
	r.SymmetricKey, r.X509 = nil, nil
	if by.auth.Type == hub.AuthSAS {
		r.SymmetricKey = new(struct{})
	} else {
		r.X509 = new(struct{})
	}
}

// operation is what the device is told of the last operation of r.
func (s *Service) operation(r record) Operation {
	now := s.hub.Now()
	if left := r.Ready.Sub(now); left > 0 {
		// Not for long, however long it lasts: the hub's clock may be moved.
		return Operation{ID: r.Operation, Status: Assigning, RetryAfter: min(max(left, time.Second), 3*time.Second).Round(time.Second)}
	}
	shown := r.as(now)
	return Operation{ID: r.Operation, Status: shown.Status, Registration: &shown}
}

// Operation returns how far an operation of the peer is.
//
// Errors: those of Authenticate, ErrNotFound.
func (s *Service) Operation(p Peer, id string) (Operation, error) {
	by, err := s.attest(p)
	switch {
	case err != nil:
		return Operation{}, err
	case by.Status == hub.StatusDisabled:
		return s.disabled(p, by, id), nil
	}
	r, err := known(s, func() (record, error) {
		r, err := readRecord(p.ID, s.store.Get)
		if err == nil && (r.Operation != id || r.Source != by.source()) || errors.Is(err, ErrRegistrationNotFound) {
			err = ErrNotFound.With("Operation not found")
		}
		return r, err
	})
	if err != nil {
		return Operation{}, err
	}
	return s.operation(r), nil
}

// knownPatience is how long a device waits for what other nodes have done.
const knownPatience = 10 * time.Second

// known returns what look does. Where other nodes may know better it looks once
// more before it refuses.
func known[T any](s *Service, look func() (T, error)) (T, error) {
	v, err := look()
	if err == nil || !s.hub.Clustered() {
		return v, err
	}
	ctx, end := context.WithTimeout(context.Background(), knownPatience)
	defer end()
	if err := s.store.Barrier(ctx); err != nil {
		return v, err
	}
	return look()
}

// Lookup returns the registration of the peer as it is.
//
// Errors: those of Authenticate, ErrRegistrationNotFound.
func (s *Service) Lookup(p Peer) (Registration, error) {
	by, err := s.attest(p)
	switch {
	case err != nil:
		return Registration{}, err
	case by.Status == hub.StatusDisabled:
		return *s.disabled(p, by, "").Registration, nil
	}
	return known(s, func() (Registration, error) { return s.Registration(p.ID) })
}

// Registration returns a registration.
//
// Errors: ErrRegistrationNotFound.
func (s *Service) Registration(id string) (Registration, error) {
	r, err := readRecord(id, s.store.Get)
	return r.as(s.hub.Now()), err
}

// DeleteRegistration forgets a registration: the next one of the device is its
// first. The device's identity stays.
//
// Errors: ErrRegistrationNotFound, ErrPreconditionFailed.
func (s *Service) DeleteRegistration(id string, m hub.Match) error {
	done, _, err := s.takeTurn(context.Background(), id)
	if err != nil {
		return err
	}
	defer done()
	return s.store.Update(string(registrationKey(id)), func(tx *store.Tx) error {
		r, err := readRecord(id, tx.Get)
		switch {
		case err != nil:
			return err
		case !fits(m, r.Shown.ETag):
			return ErrPreconditionFailed.With("the etag of registration %q is another", id)
		}
		r.remove(tx)
		return nil
	})
}

// A registering is one registration that is under way.
type registering struct {
	*Service
	peer    Peer
	request Request
	by      attested
	stored  record // that is replaced; zero if there is none
	before  place  // where the device is by this enrollment; zero is nowhere
	now     time.Time
}

// run has the device where it belongs, and returns its registration, which is stored.
func (g *registering) run(ctx context.Context) (record, error) {
	c, err := g.choose(ctx)
	if err == nil {
		r := g.record(c)
		if err = g.place(ctx, c, &r); err == nil {
			g.metrics.ended(Assigned)
			g.tell("a device is registered", g.peer, g.by, r.Shown.Substatus, r.Place)
			return g.settleLeft(ctx, r), nil
		}
	}
	if cause := context.Cause(ctx); cause != nil {
		return record{}, cause
	}
	var failed *Error
	var refused *hub.Error
	switch {
	case errors.As(err, &failed):
	case errors.As(err, &refused) && refused.Status < 500:
		failed = &Error{Code: refused.Code, Text: "The hub does not take the device", Log: refused.Error()}
	default:
		return record{}, err
	}
	g.metrics.ended(Failed)
	g.tell("a registration has failed", g.peer, g.by, failed.Error())
	return g.fail(failed)
}

// fail stores that the registration has failed. The device stays where it is.
func (g *registering) fail(why *Error) (record, error) {
	r := g.record(choice{})
	r.Place, r.Left = g.before, g.stored.Left
	r.Shown.Status, r.Shown.Substatus, r.Shown.Hub, r.Shown.DeviceID = Failed, "", "", ""
	r.Shown.ErrorCode, r.Shown.ErrorMessage = why.Code, why.Text
	return r, g.store.Update(string(registrationKey(g.peer.ID)), func(tx *store.Tx) error {
		r.put(tx, &g.stored)
		return nil
	})
}

// record returns what is stored of a device that goes to c.
func (g *registering) record(c choice) record {
	now := instant(g.now)
	r := record{Source: g.by.source(), Place: place{Device: g.device()}, Operation: newOperation()}
	if c.linked != nil {
		r.Place.Hub = c.linked.Name()
	}
	if c.stays {
		r.Place = g.before
	}
	r.Shown = Registration{
		RegistrationID: g.peer.ID, Created: now, Updated: now, ETag: registrationETag(),
		Hub: c.name, DeviceID: r.Place.Device, Status: Assigned, Substatus: initialAssignment, Payload: c.payload,
	}
	if g.by.RegistrationID != "" {
		r.Shown.RegistrationID = g.by.RegistrationID
	}
	r.Shown.attestedBy(g.by)
	if g.stored.Source == r.Source {
		r.Shown.RegistrationID, r.Shown.Created = g.stored.Shown.RegistrationID, g.stored.Shown.Created
	}
	if d := g.opt.Assigning; d > 0 {
		r.Ready = instant(g.now.Add(d))
	}
	return r
}

// device returns the id of the device in the hub's registry: the one that it has
// had, if its enrollment names none, since registration ids are the same in any case
// and device ids are not.
func (g *registering) device() string {
	switch {
	case g.by.DeviceID != "":
		return g.by.DeviceID
	case g.by.RegistrationID != "":
		return g.by.RegistrationID
	case g.before.Device != "":
		return g.before.Device
	}
	return g.peer.ID
}
