package hub

import (
	"errors"

	"github.com/iotdm/iotdm/hub/internal/disk"
	"github.com/iotdm/iotdm/hub/store"
)

// A session is what a door keeps of an identity from one connection to the
// next. What is in it is the door's. It lasts until the identity connects and
// does not want one, or is deleted.

func (id ID) sessionKey() []byte { return disk.Of(disk.Session, id.Device, id.Module) }

// OpenSession returns the session of an attached link's identity: nil and not
// present if there was none. If keep is set there is one from now on, and
// otherwise there is none. It is durable when OpenSession returns.
func (s *Server) OpenSession(l Link, keep bool) (session []byte, present bool, err error) {
	id := l.Peer().ID
	err = s.store.Update(id.Device, func(tx *store.Tx) error {
		session, present = nil, false
		stored, err := tx.Get(id.sessionKey())
		switch {
		case errors.Is(err, store.ErrNotFound):
			if !keep {
				return nil
			}
			return s.putSession(tx, l, nil)
		case err != nil:
			return err
		case !keep:
			if err := s.holds(tx, l); err != nil {
				return err
			}
			tx.Delete(id.sessionKey())
			return nil
		}
		session, present = stored, true
		return nil
	})
	return session, present, err
}

// KeepSession replaces the session of an attached link's identity.
//
// Errors: ErrTakenOver, ErrRevoked.
func (s *Server) KeepSession(l Link, session []byte) error {
	return s.store.Update(l.Peer().ID.Device, func(tx *store.Tx) error { return s.putSession(tx, l, session) })
}

// putSession stores l's session, unless l has been taken over or its identity
// deleted.
func (s *Server) putSession(tx *store.Tx, l Link, session []byte) error {
	id := l.Peer().ID
	if err := s.holds(tx, l); err != nil {
		return err
	}
	if _, err := tx.Get(id.identityKey()); err != nil {
		return ErrRevoked
	}
	tx.Set(id.sessionKey(), session)
	return nil
}

// holds returns ErrTakenOver unless l is the link of its identity.
func (s *Server) holds(tx *store.Tx, l Link) error {
	id := l.Peer().ID
	s.links.mu.RLock()
	current := s.links.byID[id] == l
	var number uint64
	if s.links.shared != nil {
		number = s.links.shared.numbers[id]
	}
	s.links.mu.RUnlock()
	if !current {
		return ErrTakenOver
	}
	if s.peers == nil {
		return nil
	}
	p, err := readPresence(tx.Get, id)
	if err == nil && (p.node != s.peers.Self() || p.number != number) {
		err = ErrTakenOver
	}
	return err
}
