package hub

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/iotdm/iotdm/hub/journal"
)

// A Link is a live connection of one identity, as the rules know it: a door
// makes it, over whatever protocol. Several may share a transport. The rules
// call its methods from any goroutine, also while they hold the lock of the
// device's changes: none but Call may wait for the peer. Peer and LastActivity
// are asked under the lock of all links, too: they take no lock a door holds
// while it calls the Server.
//
// A door authenticates the peer, attaches the link, says when the peer takes
// more (Ready), and detaches it when the peer has gone.
type Link interface {
	// Peer says who is at the other end.
	Peer() Peer

	// LastActivity is when the peer was last heard of.
	LastActivity() time.Time

	// TakesMethod reports whether the peer takes calls of a direct method now.
	TakesMethod(name string) bool

	// Call calls a direct method and waits for the answer, until the peer has
	// gone (ErrDeviceNotOnline) or ctx ends (the cause of that). It is taken
	// once it is on its way; a call that is not taken has not been sent, and
	// never will be. The payload is JSON, or nothing if the caller gave none.
	// What a peer answers is as it came.
	//
	// Errors before it is taken: ErrTooManyMethodCalls. After it:
	// ErrBadDeviceResponse, if the answer has no status.
	Call(ctx context.Context, name string, payload json.RawMessage) (answer MethodAnswer, taken bool, err error)

	// SendDesired tells the peer of its desired properties, if it has asked for
	// that: body holds what was written and the version.
	SendDesired(version int64, body json.RawMessage)

	// TakesMessages reports whether the peer takes another cloud-to-device
	// message now.
	TakesMessages() bool

	// Deliver sends a message. If that is taken, the door settles it by
	// Server.CompleteMessage, RejectMessage or AbandonMessage with the lock
	// token, unless it is settled already: by having been sent to a peer that
	// wants it at most once.
	Deliver(m *ReceivedMessage) (taken, settled bool)

	// Forget ends the wait for a message to be settled, whose lock has ended.
	Forget(lockToken string)

	// End has the connection end soon. The first reason is the one that counts.
	End(reason error)

	// EndIdle is End unless a call waits for the peer's answer. It reports whether
	// none does.
	EndIdle(reason error) bool
}

// A Peer is the client at the other end of a Link, or of one request.
type Peer struct {
	ID    ID
	Host  string    // the hub's name as the client wrote it
	Model string    // the Plug and Play model it announced
	Grant Grant     // what its credential has proved
	Since time.Time // when the connection was made

	Door, Remote string // as in an Incident
}

// Reasons why the hub ends a connection.
var (
	ErrTakenOver = errors.New("another connection with the same identity took over")
	ErrExpired   = errors.New("the credential expired")
	ErrRevoked   = errors.New("the identity was disabled or deleted, or its credentials changed")
	ErrClosing   = errors.New("the hub is closing")
	ErrReset     = errors.New("the hub was reset")
)

// Link returns the link that holds id, or nil. It is one of this node; see
// Connection for those of others.
func (s *Server) Link(id ID) Link {
	s.links.mu.RLock()
	defer s.links.mu.RUnlock()
	return s.links.byID[id]
}

// Attach makes l, whose credential has been accepted, the link of its identity,
// and ends the one before it. It fails if the identity changed while l was
// being accepted.
//
// Errors: ErrUnauthorizedAccess, ErrDeviceNotFound, ErrModuleNotFound,
// ErrServiceUnavailable when the hub closes. It waits while the state is being
// replaced.
func (s *Server) Attach(l Link) error {
	_, leave, err := s.Enter(s.ctx)
	if err != nil {
		return ErrServiceUnavailable.With("%v", ErrClosing)
	}
	defer leave()
	peer := l.Peer()
	if err := s.announceModel(peer.ID, peer.Model); err != nil {
		return err
	}
	if s.peers != nil {
		if err := s.attachShared(l); err != nil {
			return err
		}
	} else {
		before, change := s.links.put(peer.ID, l)
		s.linkChanged(peer.ID, true, change)
		if before != nil {
			s.noteConnection(before.Peer(), journal.Disconnected, ErrTakenOver)
		}
		s.noteConnection(peer, journal.Connected, nil)
		if before != nil {
			before.End(ErrTakenOver)
		}
	}
	// From here on a change of the identity, or the end of the server, finds
	// l; one that came between Authenticate and here is found now.
	if s.ctx.Err() != nil {
		s.Detach(l, "closing", ErrClosing)
		return ErrServiceUnavailable.With("%v", ErrClosing)
	}
	if !s.stillValid(peer) {
		s.Detach(l, "revoked", ErrRevoked)
		return ErrUnauthorizedAccess.With("%v", ErrRevoked)
	}
	return nil
}

// Ready says that the peer of an attached link has begun to take methods,
// desired properties or messages, or takes more of them. Who waits for that is
// told, and what waits is sent.
func (s *Server) Ready(l Link) {
	id := l.Peer().ID
	s.links.notify(id)
	if id.Module == "" {
		s.deliver(id.Device)
	}
}

// Detach forgets l, and remembers why it has ended, of which the reason is a
// word of the door's metrics. Another link of the same identity is left alone.
// Messages that l was sent and has not settled wait again.
func (s *Server) Detach(l Link, reason string, why error) {
	peer := l.Peer()
	id := peer.ID
	change, told := s.links.remove(id, l, s.incident(peer, reason, why))
	defer told()
	switch {
	case change == 0:
	case s.peers != nil:
		s.running.Go(func() { s.removePresence(id, change) })
	default:
		s.linkChanged(id, false, change)
		s.noteConnection(peer, journal.Disconnected, why)
	}
	s.Release(l) // to the connection that took over
}

// Release has the messages wait again that l was sent and has not settled: the
// peer takes no more of them, and may be connected all the same.
func (s *Server) Release(l Link) {
	id := l.Peer().ID
	if id.Module == "" {
		s.queues.unlockAll(id.Device, func(m lockedMessage) bool { return m.link == l && !m.settling })
		s.deliver(id.Device)
	}
}

// Announce stores the Plug and Play model of an attached link's peer, which has
// become known since.
//
// Errors: ErrDeviceNotFound, ErrModuleNotFound.
func (s *Server) Announce(l Link) error {
	peer := l.Peer()
	return s.announceModel(peer.ID, peer.Model)
}

// recheckLinks ends the links of id, and of its modules if it is a device,
// whose credential no longer holds.
func (s *Server) recheckLinks(id ID) {
	s.endInvalid(s.links.of(id))
}

// recheckCertificates ends the links with a client certificate that no longer
// holds.
func (s *Server) recheckCertificates() {
	s.endInvalid(s.links.all(func(p Peer) bool { return len(p.Grant.chain) > 0 }))
}

func (s *Server) endInvalid(links []Link) {
	for _, l := range links {
		if !s.stillValid(l.Peer()) {
			l.End(ErrRevoked)
		}
	}
}

// endExpired ends the links whose credential has expired, and returns when the
// next one does, which is never if none does.
func (s *Server) endExpired() (next time.Time) {
	now, next := s.Now(), never
	for _, l := range s.links.all(func(p Peer) bool { return !p.Grant.Expires.IsZero() }) {
		if expires := l.Peer().Grant.Expires; expires.After(now) {
			next = earlier(next, expires)
		} else {
			l.End(ErrExpired)
		}
	}
	return next
}

func (s *Server) stillValid(p Peer) bool {
	_, err := s.Authenticate(p.Host, p.ID, p.Grant.password, p.Grant.chain)
	return err == nil
}
