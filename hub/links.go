package hub

import (
	"encoding/binary"
	"errors"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/iotdm/iotdm/hub/store"
)

// links knows which connection holds which identity.
type links struct {
	rid atomic.Uint64 // the last request id of a direct method

	mu       sync.RWMutex // guards what follows; never held over I/O
	byID     map[ID]*conn
	modules  map[string]map[ID]*conn // connected modules by device
	watchers map[ID]map[chan struct{}]struct{}
	activity map[ID]activity // of identities that disconnected, until it is stored
	changes  uint64          // counts connections made and ended
}

func (l *links) init() {
	l.byID = make(map[ID]*conn)
	l.modules = make(map[string]map[ID]*conn)
	l.watchers = make(map[ID]map[chan struct{}]struct{})
	l.activity = make(map[ID]activity)
}

// Reasons why the hub ends a connection, for its log.
var (
	errTakenOver  = errors.New("another connection with the same identity took over")
	errExpired    = errors.New("the credential expired")
	errRevoked    = errors.New("the identity was disabled or deleted, or its credentials changed")
	errHubClosed  = errors.New("the hub is closing")
	errSlowReader = errors.New("the peer does not read what it is sent")
)

// connection returns the connection that holds id, or nil. Later it will look
// on other nodes.
func (s *Server) connection(id ID) *conn {
	s.links.mu.RLock()
	defer s.links.mu.RUnlock()
	return s.links.byID[id]
}

// attach makes c, whose credential has been accepted, the connection of its
// identity, and ends the one before it. It fails if the identity changed while
// c was being accepted.
func (s *Server) attach(c *conn) error {
	s.links.mu.Lock()
	before := s.links.byID[c.id]
	s.links.byID[c.id] = c
	if c.id.Module != "" {
		if s.links.modules[c.id.Device] == nil {
			s.links.modules[c.id.Device] = make(map[ID]*conn)
		}
		s.links.modules[c.id.Device][c.id] = c
	}
	s.links.changes++
	change := s.links.changes
	s.links.mu.Unlock()
	s.linkChanged(c.id, true, change)
	if before != nil {
		before.end(errTakenOver)
	}
	// From here on a change of the identity, or the end of the server, finds
	// c; one that came between authenticate and here is found now.
	if s.ctx.Err() != nil {
		s.detach(c)
		return ErrServiceUnavailable.with("%v", errHubClosed)
	}
	if !s.stillValid(c) {
		s.detach(c)
		return ErrUnauthorizedAccess.with("%v", errRevoked)
	}
	s.links.notify(c.id)
	return nil
}

// detach forgets c. Another connection of the same identity is left alone.
func (s *Server) detach(c *conn) {
	if change := s.unlink(c); change != 0 {
		s.linkChanged(c.id, false, change)
	}
}

// unlink returns the number of the change, 0 if it is none.
func (s *Server) unlink(c *conn) uint64 {
	s.links.mu.Lock()
	defer s.links.mu.Unlock()
	if s.links.byID[c.id] != c {
		return 0
	}
	delete(s.links.byID, c.id)
	if c.id.Module != "" {
		delete(s.links.modules[c.id.Device], c.id)
		if len(s.links.modules[c.id.Device]) == 0 {
			delete(s.links.modules, c.id.Device)
		}
	}
	s.links.activity[c.id] = activity{Changed: s.now(), Last: c.lastActivity()}
	s.links.changes++
	return s.links.changes
}

// recheckLinks ends the connections of id, and of its modules if it is a
// device, whose credential no longer holds.
func (s *Server) recheckLinks(id ID) {
	var affected []*conn
	s.links.mu.RLock()
	if c := s.links.byID[id]; c != nil {
		affected = append(affected, c)
	}
	if id.Module == "" {
		for _, c := range s.links.modules[id.Device] {
			affected = append(affected, c)
		}
	}
	s.links.mu.RUnlock()
	for _, c := range affected {
		if !s.stillValid(c) {
			c.end(errRevoked)
		}
	}
}

// recheckCertificates ends the connections with a client certificate that no
// longer holds.
func (s *Server) recheckCertificates() {
	var affected []*conn
	s.links.mu.RLock()
	for _, c := range s.links.byID {
		if len(c.grant.chain) > 0 {
			affected = append(affected, c)
		}
	}
	s.links.mu.RUnlock()
	for _, c := range affected {
		if !s.stillValid(c) {
			c.end(errRevoked)
		}
	}
}

func (s *Server) stillValid(c *conn) bool {
	_, err := s.authenticate(c.host, c.id, c.grant.password, c.grant.chain)
	return err == nil
}

// watch returns a channel that receives after every change of id's connection
// or subscriptions, until stop is called.
func (l *links) watch(id ID) (changed <-chan struct{}, stop func()) {
	ch := make(chan struct{}, 1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.watchers[id] == nil {
		l.watchers[id] = make(map[chan struct{}]struct{})
	}
	l.watchers[id][ch] = struct{}{}
	return ch, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.watchers[id], ch)
		if len(l.watchers[id]) == 0 {
			delete(l.watchers, id)
		}
	}
}

func (l *links) notify(id ID) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for ch := range l.watchers[id] {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

// closeAll ends every connection.
func (l *links) closeAll(reason error) {
	l.mu.RLock()
	all := make([]*conn, 0, len(l.byID))
	for _, c := range l.byID {
		all = append(all, c)
	}
	l.mu.RUnlock()
	for _, c := range all {
		c.end(reason)
	}
}

// ConnectionState is what the hub knows of an identity's connection. The zero
// value is an identity that never connected.
type ConnectionState struct {
	Connected       bool
	Changed         time.Time // when it connected or disconnected last
	LastActivity    time.Time // when the hub last heard of it
	PendingMessages int       // cloud-to-device messages that wait
}

// String returns the service's word for the state.
func (c ConnectionState) String() string {
	if c.Connected {
		return "Connected"
	}
	return "Disconnected"
}

// ConnectionState returns what the hub knows of the identity's connection.
func (s *Server) ConnectionState(id ID) ConnectionState {
	return s.connectionState(id, func() activity {
		data, err := s.store.Get(id.activityKey())
		if err != nil {
			return activity{}
		}
		return decodeActivity(data)
	})
}

// connectionState is ConnectionState for those who have another way to read the
// store.
func (s *Server) connectionState(id ID, stored func() activity) ConnectionState {
	s.links.mu.RLock()
	c := s.links.byID[id]
	a, recent := s.links.activity[id]
	s.links.mu.RUnlock()
	pending := 0
	if id.Module == "" {
		pending = s.queues.count(id.Device)
	}
	if c != nil {
		return ConnectionState{Connected: true, Changed: c.since, LastActivity: c.lastActivity(), PendingMessages: pending}
	}
	if !recent {
		a = stored()
	}
	return ConnectionState{Changed: a.Changed, LastActivity: a.Last, PendingMessages: pending}
}

// ConnectedDevices returns the number of devices, not modules, with a
// connection.
func (s *Server) ConnectedDevices() (n int) {
	s.links.mu.RLock()
	defer s.links.mu.RUnlock()
	for id := range s.links.byID {
		if id.Module == "" {
			n++
		}
	}
	return n
}

// An activity is when a disconnected identity was last seen. It is informative
// only: it reaches the disk a little later than it happens.
type activity struct{ Changed, Last time.Time }

// activityDelay bounds how much activity a killed hub forgets.
const activityDelay = 2 * time.Second

// keepActivity stores the activity of disconnected identities until the server
// closes.
func (s *Server) keepActivity() {
	tick := time.NewTicker(activityDelay)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.flushActivity()
		case <-s.ctx.Done():
			return
		}
	}
}

func (s *Server) flushActivity() {
	s.links.mu.RLock()
	pending := maps.Clone(s.links.activity)
	s.links.mu.RUnlock()
	if len(pending) == 0 {
		return
	}
	err := s.store.Update(activityPrefix, func(tx *store.Tx) error {
		for id, a := range pending {
			// One that was deleted while connected leaves nothing to a later
			// identity of the same name.
			if _, err := tx.Get(id.identityKey()); err == nil {
				tx.Set(id.activityKey(), a.encode())
			}
		}
		return nil
	})
	if err != nil {
		s.log.Warn("storing when identities were last seen", logReason, err)
		return
	}
	s.links.mu.Lock()
	defer s.links.mu.Unlock()
	for id, a := range pending {
		if s.links.activity[id] == a {
			delete(s.links.activity, id)
		}
	}
}

func (a activity) encode() []byte {
	b := binary.AppendVarint(nil, a.Changed.UnixNano())
	return binary.AppendVarint(b, a.Last.UnixNano())
}

func decodeActivity(data []byte) (a activity) {
	changed, n := binary.Varint(data)
	if n <= 0 {
		return activity{}
	}
	last, _ := binary.Varint(data[n:])
	return activity{Changed: time.Unix(0, changed), Last: time.Unix(0, last)}
}
