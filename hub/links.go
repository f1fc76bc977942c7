package hub

import (
	"context"
	"encoding/binary"
	"maps"
	"strconv"
	"sync"
	"time"

	"github.com/iotdm/iotdm/hub/internal/disk"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/hub/store"
	"github.com/iotdm/iotdm/internal/wait"
)

// links knows which link holds which identity.
type links struct {
	mu       sync.RWMutex // guards what follows; never held over I/O
	byID     map[ID]Link
	modules  map[string]map[ID]Link // of connected modules, by device
	watchers map[ID]map[wait.Signal]struct{}
	activity map[ID]activity // of identities that disconnected, until it is stored
	changes  uint64          // counts connections made and ended
	devices  int             // of byID, those that are no modules
	ending   int             // links that are removed, of which that is not told yet
	none     wait.Signal     // there is no link any more, nor one that is ending

	shared *presences // nil on a hub of one node
}

func (l *links) init() {
	l.byID = make(map[ID]Link)
	l.modules = make(map[string]map[ID]Link)
	l.watchers = make(map[ID]map[wait.Signal]struct{})
	l.activity = make(map[ID]activity)
	l.none = wait.NewSignal()
}

// put makes link that of id, and returns the one before it and the number of
// the change.
func (l *links) put(id ID, link Link) (before Link, change uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.set(id, link), l.changes
}

// set is put for a caller that holds l.mu.
func (l *links) set(id ID, link Link) (before Link) {
	before = l.byID[id]
	l.byID[id] = link
	if before == nil && id.Module == "" {
		l.devices++
	}
	if id.Module != "" {
		if l.modules[id.Device] == nil {
			l.modules[id.Device] = make(map[ID]Link)
		}
		l.modules[id.Device][id] = link
	}
	l.changes++
	return before
}

// remove returns the number of the change, 0 if it is none. End is why, at
// the time of it. The link is ending until told is called.
func (l *links) remove(id ID, link Link, end *Incident) (change uint64, told func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byID[id] != link {
		return 0, func() {}
	}
	l.activity[id] = activity{Changed: end.Time, Last: link.LastActivity(), End: end}
	l.ending++
	return l.unset(id), func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.ending--
		l.signalNone()
	}
}

func (l *links) signalNone() {
	if len(l.byID)+l.ending == 0 {
		l.none.Set()
	}
}

// unset is remove for a caller that holds l.mu and knows that there is a link. In
// a cluster the number is that of the link.
func (l *links) unset(id ID) (number uint64) {
	delete(l.byID, id)
	if id.Module == "" {
		l.devices--
	} else {
		delete(l.modules[id.Device], id)
		if len(l.modules[id.Device]) == 0 {
			delete(l.modules, id.Device)
		}
	}
	l.changes++
	l.signalNone()
	if l.shared != nil {
		number = l.shared.numbers[id]
		delete(l.shared.numbers, id)
		return number
	}
	return l.changes
}

// awaitNone returns when there is no link and the end of each is told, or ctx ends,
// with its error.
func (l *links) awaitNone(ctx context.Context) error {
	for {
		l.mu.RLock()
		left := len(l.byID) + l.ending
		l.mu.RUnlock()
		if left == 0 {
			return nil
		}
		select {
		case <-l.none:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// of returns the links of id, and of its modules if it is a device.
func (l *links) of(id ID) (list []Link) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if link := l.byID[id]; link != nil {
		list = append(list, link)
	}
	if id.Module == "" {
		for _, link := range l.modules[id.Device] {
			list = append(list, link)
		}
	}
	return list
}

// all returns the links whose peer matches.
func (l *links) all(match func(Peer) bool) (list []Link) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, link := range l.byID {
		if match(link.Peer()) {
			list = append(list, link)
		}
	}
	return list
}

// names returns the names of the connected devices, or modules, unless there
// are more than most links.
func (l *links) names(modules bool, most int) (names []string, few bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if len(l.byID) > most || l.shared != nil && len(l.shared.present) > most {
		return nil, false
	}
	for id := range l.byID {
		if (id.Module != "") == modules {
			names = append(names, id.String())
		}
	}
	if l.shared == nil {
		return names, true
	}
	for id := range l.shared.present {
		if _, ok := l.shared.elsewhere(id); ok && (id.Module != "") == modules {
			names = append(names, id.String())
		}
	}
	return names, true
}

// unstored returns the activity that is not in the store yet.
func (l *links) unstored() map[ID]activity {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return maps.Clone(l.activity)
}

// watch returns a channel that receives after every change of id's connection
// or subscriptions, until stop is called.
func (l *links) watch(id ID) (changed <-chan struct{}, stop func()) {
	signal := wait.NewSignal()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.watchers[id] == nil {
		l.watchers[id] = make(map[wait.Signal]struct{})
	}
	l.watchers[id][signal] = struct{}{}
	return signal, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.watchers[id], signal)
		if len(l.watchers[id]) == 0 {
			delete(l.watchers, id)
		}
	}
}

func (l *links) notify(id ID) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for signal := range l.watchers[id] {
		signal.Set()
	}
}

// ConnectionState is what the hub knows of an identity's connection. The zero
// value is an identity that never connected.
type ConnectionState struct {
	Connected       bool
	Changed         time.Time // when it connected or disconnected last
	LastActivity    time.Time // when the hub last heard of it; while another node has the connection, when it was made
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
	elsewhere, ok := s.links.shared.elsewhere(id)
	s.links.mu.RUnlock()
	pending := 0
	if id.Module == "" {
		pending = s.queues.count(id.Device)
	}
	if c != nil {
		return ConnectionState{Connected: true, Changed: c.Peer().Since, LastActivity: c.LastActivity(), PendingMessages: pending}
	}
	if ok {
		since := time.Unix(0, elsewhere.since)
		return ConnectionState{Connected: true, Changed: since, LastActivity: since, PendingMessages: pending}
	}
	if !recent {
		a = stored()
	}
	return ConnectionState{Changed: a.Changed, LastActivity: a.Last, PendingMessages: pending}
}

// connected reports whether an identity has a link, on whichever node.
func (s *Server) connected(id ID) bool {
	s.links.mu.RLock()
	defer s.links.mu.RUnlock()
	if s.links.byID[id] != nil {
		return true
	}
	_, ok := s.links.shared.elsewhere(id)
	return ok
}

// ConnectedDevices returns the number of devices, not modules, with a
// connection, of all nodes.
func (s *Server) ConnectedDevices() int {
	return s.connectedElsewhere(func(n *nodeLinks) int { return n.devices }) + s.linkedDevices()
}

// connectedModules returns the number of modules with a connection, of all nodes.
func (s *Server) connectedModules() int {
	return s.connectedElsewhere(func(n *nodeLinks) int { return n.modules }) + s.linkedModules()
}

// connectedElsewhere adds up what other nodes have.
func (s *Server) connectedElsewhere(of func(*nodeLinks) int) (n int) {
	s.links.mu.RLock()
	defer s.links.mu.RUnlock()
	if p := s.links.shared; p != nil {
		for epoch, at := range p.nodes {
			if epoch != p.peers.Self() && p.peers.Alive(epoch) {
				n += of(at)
			}
		}
	}
	return n
}

// linkedDevices is ConnectedDevices of this node alone.
func (s *Server) linkedDevices() int {
	s.links.mu.RLock()
	defer s.links.mu.RUnlock()
	return s.links.devices
}

func (s *Server) linkedModules() int {
	s.links.mu.RLock()
	defer s.links.mu.RUnlock()
	return len(s.links.byID) - s.links.devices
}

// An activity is when a disconnected identity was last seen. It is informative
// only: it reaches the disk a little later than it happens.
type activity struct {
	Changed, Last time.Time
	End           *Incident // why it disconnected; nil in what is decoded
}

// activityDelay bounds how much activity a killed hub forgets.
const activityDelay = 2 * time.Second

// keepActivity stores the activity of disconnected identities, and why others
// were refused, until the server closes.
func (s *Server) keepActivity() {
	tick := s.clock.NewTicker(activityDelay)
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
	pending, refused := s.links.unstored(), s.refusals.pending()
	if len(pending)+len(refused) == 0 {
		return
	}
	lock := disk.Activity
	if s.peers != nil { // nodes need not wait for each other
		lock += strconv.FormatUint(s.peers.Self(), 10)
	}
	err := s.store.Update(lock, func(tx *store.Tx) error {
		pending, refused = s.links.unstored(), s.refusals.pending() // of the state that there is by now
		for id, a := range pending {
			// One that was deleted while connected leaves nothing to a later
			// identity of the same name.
			if _, err := tx.Get(id.identityKey()); err == nil {
				tx.Set(id.activityKey(), a.encode())
			}
		}
		for id, i := range refused {
			if _, err := tx.Get(id.identityKey()); err == nil {
				tx.Set(id.refusalKey(), i.append(nil))
			}
		}
		return nil
	})
	if err != nil {
		s.log.Warn("storing when identities were last seen", words.LogReason, err)
		return
	}
	s.refusals.stored(refused)
	s.links.mu.Lock()
	defer s.links.mu.Unlock()
	for id, a := range pending {
		if s.links.activity[id] == a {
			delete(s.links.activity, id)
		}
	}
}

// A stored activity has no format: it is two numbers and, since there are those,
// an incident, and may be lost.
func (a activity) encode() []byte {
	b := binary.AppendVarint(nil, a.Changed.UnixNano())
	b = binary.AppendVarint(b, a.Last.UnixNano())
	if a.End != nil {
		b = a.End.append(b)
	}
	return b
}

func decodeActivity(data []byte) (a activity) {
	changed, n := binary.Varint(data)
	if n <= 0 {
		return activity{}
	}
	last, _ := binary.Varint(data[n:])
	return activity{Changed: time.Unix(0, changed), Last: time.Unix(0, last)}
}

// decodeEnd returns the incident of a stored activity, or nil.
func decodeEnd(data []byte) *Incident {
	for range 2 {
		_, n := binary.Varint(data)
		data = data[max(n, 0):]
	}
	end, _ := decodeIncident(data)
	return end
}
