package provisioning

import (
	"context"
	"errors"
	"strings"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/hub/store"
)

// PutEnrollment creates an enrollment when m is no condition, and otherwise replaces
// the one of its id if m fits it. Keys that are not given are kept, or made. The
// answer holds them.
//
// That the service does not replace without a condition is told in issue 3076 of
// Azure/azure-iot-sdk-csharp.
//
// Errors: ErrBadRequest, ErrAlreadyExists, ErrNotFound, ErrPreconditionFailed,
// ErrTooMany.
func (s *Service) PutEnrollment(given Enrollment, m hub.Match) (Enrollment, error) {
	k, id := given.Kind(), given.ID()
	var e Enrollment
	err := s.store.Update(k.lock(id), func(tx *store.Tx) error {
		e = given
		e.Attestation = given.Attestation.clone()
		before, err := readEnrollment(k, id, tx.Get)
		found := err == nil
		switch {
		case err != nil && !errors.Is(err, ErrNotFound), !found && !m.None():
			return err
		case found && m.None():
			return ErrAlreadyExists.With("there is an %s %q already", k, id)
		case found && !fits(m, before.ETag):
			return ErrPreconditionFailed.With("the etag of %s %q is another", k, id)
		case !found && k == Group && len(s.groups.all()) >= maxGroups:
			return ErrTooMany.With("there may be at most %d enrollment groups", maxGroups)
		}
		if err := s.settle(&e, before); err != nil {
			return err
		}
		if found { // as it was first written
			e.RegistrationID, e.GroupID = before.RegistrationID, before.GroupID
		}
		now := instant(s.hub.Now())
		e.Created, e.Updated, e.ETag, e.Registration = now, now, newETag(), nil
		if found {
			e.Created = before.Created
		}
		if _, err := newGroup(e); err != nil {
			return err
		}
		tx.Set(k.key(id), words.MustMarshal(e))
		return nil
	})
	if err != nil {
		return Enrollment{}, err
	}
	keys := e.Attestation.SymmetricKey
	e.Attestation = e.Attestation.shown()
	if keys != nil {
		*e.Attestation.SymmetricKey = *keys
	}
	return e, nil
}

// fits reports whether an etag is one that m asks for. Clients write it with the
// quotes that are part of it, or without.
func fits(m hub.Match, etag string) bool {
	return m.ETag == "" || strings.Trim(m.ETag, `"`) == strings.Trim(etag, `"`)
}

// Enrollment returns an enrollment, without keys and certificates.
//
// Errors: ErrNotFound.
func (s *Service) Enrollment(k Kind, id string) (Enrollment, error) {
	e, err := readEnrollment(k, id, s.store.Get)
	if err != nil {
		return e, err
	}
	return s.shown(e)
}

// shown returns an enrollment as it is read: an individual one with its registration.
func (s *Service) shown(e Enrollment) (Enrollment, error) {
	e.Attestation = e.Attestation.shown()
	if e.Kind() == Group {
		return e, nil
	}
	r, err := readRecord(e.ID(), s.store.Get)
	if errors.Is(err, ErrRegistrationNotFound) || err == nil && r.Source != e.source() {
		return e, nil
	}
	now := r.as(s.hub.Now())
	e.Registration = &now
	return e, err
}

// AttestationMechanism returns the attestation of an enrollment, with its keys.
//
// Errors: ErrNotFound.
func (s *Service) AttestationMechanism(k Kind, id string) (Attestation, error) {
	e, err := readEnrollment(k, id, s.store.Get)
	return e.Attestation, err
}

// DeleteEnrollment removes an enrollment, an individual one with its registration:
// those of a group stay, and so do the identities of all.
//
// Errors: ErrNotFound, ErrPreconditionFailed.
func (s *Service) DeleteEnrollment(k Kind, id string, m hub.Match) error {
	if k == Individual {
		done, _, err := s.takeTurn(context.Background(), id)
		if err != nil {
			return err
		}
		defer done()
	}
	return s.store.Update(k.lock(id), func(tx *store.Tx) error {
		e, err := readEnrollment(k, id, tx.Get)
		if err != nil {
			return err
		}
		if !fits(m, e.ETag) {
			return ErrPreconditionFailed.With("the etag of %s %q is another", k, id)
		}
		tx.Delete(k.key(id))
		if k == Group {
			return nil
		}
		switch r, err := readRecord(id, tx.Get); {
		case errors.Is(err, ErrRegistrationNotFound):
		case err != nil:
			return err
		case r.Source == e.source():
			r.remove(tx)
		}
		return nil
	})
}

// Reload forgets what the service has in memory, and reads what the store has now.
func (s *Service) Reload() error {
	s.groups.clear()
	s.individuals.Store(0)
	for prefix, take := range s.kept() {
		err := s.store.Scan([]byte(prefix), store.PrefixEnd([]byte(prefix)), func(k, v []byte) error {
			return take(store.Change{Key: k, Value: v})
		})
		if err != nil {
			return err
		}
	}
	return nil
}
