package hub

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/iotdm/iotdm/hub/internal/disk"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/hub/store"
	"github.com/iotdm/iotdm/internal/wait"
)

// In a cluster a record says which node has the link of an identity. It is
// written in the turn of the identity's device when a link is attached, so that
// of several that want to be it the last in the log is, on every node; and it
// is removed when that has ended. A record of a node that is no member counts
// for nothing.

func (id ID) linkKey() []byte { return disk.Of(disk.Link, id.Device, id.Module) }

// A presence is what the record of a link says.
type presence struct {
	node         uint64 // its epoch; 0 is no link
	number       uint64 // of the node's links
	since        time.Time
	door, remote string
}

// presenceFormat is the first byte of the record of a link.
const presenceFormat = 1

func (p presence) encode() []byte {
	b := binary.AppendUvarint([]byte{presenceFormat}, p.node)
	b = binary.AppendUvarint(b, p.number)
	b = binary.AppendVarint(b, p.since.UnixNano())
	return disk.AppendText(disk.AppendText(b, p.door), p.remote)
}

func decodePresence(data []byte) (presence, error) {
	r := disk.Read("link", data, presenceFormat)
	p := presence{node: r.Number(), number: r.Number(), since: time.Unix(0, r.Signed()), door: string(r.Text()), remote: string(r.Text())}
	if err := r.Err(); err != nil {
		return presence{}, err
	}
	return p, nil
}

// readPresence returns the record of an identity's link, zero if there is none.
func readPresence(get func([]byte) ([]byte, error), id ID) (presence, error) {
	data, err := get(id.linkKey())
	if errors.Is(err, store.ErrNotFound) {
		return presence{}, nil
	}
	if err != nil {
		return presence{}, err
	}
	return decodePresence(data)
}

// presences are what a node of a cluster knows of the links of all nodes. The
// lock of links guards it.
type presences struct {
	peers Peers

	last      uint64          // number of a link of this node
	attaching map[uint64]Link // those whose record is on its way
	numbers   map[ID]uint64   // of those that are attached

	present map[ID]present
	nodes   map[uint64]*nodeLinks

	changed wait.Signal // members have
}

// A present is what is kept in memory of a record.
type present struct {
	node  uint64
	since int64 // in Unix nanoseconds
}

// nodeLinks is what is known of a node that has links, or is asked something.
type nodeLinks struct {
	devices, modules int
	lost             context.Context // ends when it is no member any more
	lose             context.CancelFunc
}

// shareLinks begins to tell other nodes of the links, and to hear of theirs.
func (s *Server) shareLinks() error {
	if s.peers == nil {
		return nil
	}
	s.links.shared = &presences{
		peers: s.peers, attaching: make(map[uint64]Link), numbers: make(map[ID]uint64),
		present: make(map[ID]present), nodes: make(map[uint64]*nodeLinks), changed: wait.NewSignal(),
	}
	s.OnMembers(s.membersChanged)
	if err := s.subscribe(disk.Link, s.hearLink); err != nil {
		return err
	}
	Answer(s, invokeVerb, s.answerInvoke)
	Answer(s, trafficVerb, func(context.Context, struct{}) (Traffic, error) { return s.traffic(), nil })
	Answer(s, refusalsVerb, func(context.Context, struct{}) (Refusals, error) { return s.ownRefusals(), nil })
	Answer(s, incidentsVerb, func(_ context.Context, id ID) (incidents, error) {
		last, _ := s.unstoredIncidents(id)
		return last, nil
	})
	s.WhileLeading(s.keepPresence)
	return nil
}

// node returns what is known of a node.
func (p *presences) node(epoch uint64) *nodeLinks {
	n := p.nodes[epoch]
	if n == nil {
		n = new(nodeLinks)
		n.lost, n.lose = context.WithCancel(context.Background())
		p.nodes[epoch] = n
	}
	return n
}

// set takes down what the record of an identity says.
func (p *presences) set(id ID, record presence) {
	if before, ok := p.present[id]; ok {
		delete(p.present, id)
		p.count(id, before.node, -1)
	}
	if record.node != 0 {
		p.present[id] = present{record.node, record.since.UnixNano()}
		p.count(id, record.node, 1)
	}
}

func (p *presences) count(id ID, epoch uint64, by int) {
	n := p.node(epoch)
	if id.Module == "" {
		n.devices += by
	} else {
		n.modules += by
	}
	p.forget(epoch, n)
}

// forget forgets a node that is no member and has no record left.
func (p *presences) forget(epoch uint64, n *nodeLinks) {
	if p.peers.Alive(epoch) {
		return
	}
	n.lose()
	if n.devices+n.modules == 0 {
		delete(p.nodes, epoch)
	}
}

// elsewhere returns what is known of a link that another member has.
func (p *presences) elsewhere(id ID) (at present, ok bool) {
	if p == nil {
		return present{}, false
	}
	at, ok = p.present[id]
	return at, ok && at.node != p.peers.Self() && p.peers.Alive(at.node)
}

// hearLink makes of links what a record says that has changed. It is called in
// the order of the log.
func (s *Server) hearLink(c store.Change) {
	id := parseID(string(c.Key[len(disk.Link):]))
	var record presence
	if c.Value != nil {
		var err error
		if record, err = decodePresence(c.Value); err != nil {
			s.log.Error("the record of a link is not understood", words.LogID, id.String(), words.LogReason, err)
			return
		}
	}
	ended, orphan := s.links.hear(id, record)
	if ended != nil {
		ended.End(ErrTakenOver)
	}
	if orphan {
		s.running.Go(func() { s.removePresence(id, record.number) })
	}
	s.links.notify(id)
}

// hear returns the link of this node that is none any more, and whether the
// record is of one that this node has not got.
func (l *links) hear(id ID, record presence) (ended Link, orphan bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.shared
	p.set(id, record)
	mine := record.node == p.peers.Self()
	link := p.attaching[record.number]
	switch {
	case record.node == 0:
		return nil, false // whoever removed it ends the link
	case mine && link != nil:
		delete(p.attaching, record.number)
		p.numbers[id] = record.number
		return l.set(id, link), false
	case mine && p.numbers[id] == record.number:
		return nil, false // told again
	}
	ended = l.byID[id]
	if ended != nil {
		l.unset(id)
	}
	return ended, mine
}

// attachShared is Attach in a cluster. The link is that of its identity once the
// record is read from the log.
func (s *Server) attachShared(l Link) error {
	peer := l.Peer()
	number := s.links.expect(l)
	err := s.Update(peer.ID.Device, func(tx *Tx) error {
		if !s.stillValid(peer) {
			return ErrUnauthorizedAccess.With("%v", ErrRevoked)
		}
		tx.Store.Set(peer.ID.linkKey(), presence{s.peers.Self(), number, peer.Since, peer.Door, peer.Remote}.encode())
		tx.tellLink(peer.ID, true)
		return nil
	})
	if err != nil {
		s.links.forgo(number)
		s.Detach(l, "unavailable", err) // if the record has come after all
	}
	return err
}

func (l *links) expect(link Link) (number uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shared.last++
	l.shared.attaching[l.shared.last] = link
	return l.shared.last
}

func (l *links) forgo(number uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.shared.attaching, number)
}

// presencePause is between attempts to remove the record of a link that has
// ended.
const presencePause = time.Second

// removePresence removes the record of a link of this node that has ended. It is
// not given up while the node is a member: others would take it at its word.
func (s *Server) removePresence(id ID, number uint64) {
	for {
		err := s.Update(id.Device, func(tx *Tx) error {
			p, err := readPresence(tx.Store.Get, id)
			if err == nil && p.node == s.peers.Self() && p.number == number {
				tx.endPresence(id)
			}
			return err
		})
		if err == nil {
			return
		}
		s.often.Warn("the record of a connection that has ended is not removed yet", slog.String(words.LogID, id.String()), slog.Any(words.LogReason, err))
		if wait.For(s.ctx, presencePause) != nil {
			return
		}
	}
}

// endPresence removes the record of a link.
func (tx *Tx) endPresence(id ID) {
	tx.Store.Delete(id.linkKey())
	tx.tellLink(id, false)
}

// held returns ErrTakenOver unless the record says that this node has the link of
// an identity: what its link asks for then is that of the one that counts. A hub
// of one node ends a link before another one is.
func (tx *Tx) held(id ID) error {
	if tx.hub.peers == nil {
		return nil
	}
	p, err := readPresence(tx.Store.Get, id)
	if err == nil && p.node != tx.hub.peers.Self() {
		err = ErrTakenOver
	}
	return err
}

// holder returns the node whose link of an identity counts, by its epoch. It is
// not ok if there is none.
func (s *Server) holder(id ID) (node uint64, ok bool) {
	s.links.mu.RLock()
	defer s.links.mu.RUnlock()
	at, ok := s.links.shared.present[id]
	return at.node, ok && s.peers.Alive(at.node)
}

// holderIn is holder as a Tx reads it, 0 if there is none.
func (s *Server) holderIn(get func([]byte) ([]byte, error), id ID) (node uint64, err error) {
	p, err := readPresence(get, id)
	if err != nil || !s.peers.Alive(p.node) {
		return 0, err
	}
	return p.node, nil
}

// Connection returns the peer of an identity's link, whichever node has that. Of
// another node's, what its credential has proved is not known.
func (s *Server) Connection(id ID) (Peer, bool) {
	if l := s.Link(id); l != nil {
		return l.Peer(), true
	}
	if s.peers == nil {
		return Peer{}, false
	}
	p, err := readPresence(s.store.Get, id)
	if err != nil || p.node == s.peers.Self() || !s.peers.Alive(p.node) {
		return Peer{}, false
	}
	return Peer{ID: id, Since: p.since, Door: p.door, Remote: p.remote}, true
}

// lost returns a context that ends when a node is no member any more.
func (s *Server) lost(epoch uint64) context.Context {
	s.links.mu.Lock()
	defer s.links.mu.Unlock()
	n := s.links.shared.node(epoch)
	s.links.shared.forget(epoch, n)
	return n.lost
}

// membersChanged lets go what waits for a node that is no member any more.
func (s *Server) membersChanged() {
	s.links.mu.Lock()
	for epoch, n := range s.links.shared.nodes {
		s.links.shared.forget(epoch, n)
	}
	s.links.mu.Unlock()
	s.links.shared.changed.Set()
}

// errNodeLost is why the connections have ended of a node that has gone.
var errNodeLost = errors.New("the node of the hub that had the connection has gone")

// keepPresence removes the records of nodes that have gone, while this node leads.
func (s *Server) keepPresence(ctx context.Context) {
	const atOnce = 64
	for ctx.Err() == nil {
		var g errgroup.Group
		g.SetLimit(atOnce)
		for _, id := range s.links.left() {
			if ctx.Err() != nil {
				break
			}
			g.Go(func() error { return s.sweepPresence(id) })
		}
		var again <-chan time.Time
		if err := g.Wait(); err != nil && ctx.Err() == nil {
			s.log.Warn("connections of a node that has gone are not written off yet", words.LogReason, err)
			again = time.After(presencePause)
		}
		select {
		case <-s.links.shared.changed:
		case <-again:
		case <-ctx.Done():
		}
	}
}

// left returns the identities whose record is of a node that is no member.
func (l *links) left() (list []ID) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	gone := make(map[uint64]bool)
	for epoch := range l.shared.nodes {
		gone[epoch] = !l.shared.peers.Alive(epoch)
	}
	for id, at := range l.shared.present {
		if gone[at.node] {
			list = append(list, id)
		}
	}
	return list
}

func (s *Server) sweepPresence(id ID) error {
	return s.Update(id.Device, func(tx *Tx) error {
		p, err := readPresence(tx.Store.Get, id)
		if err != nil || p.node == 0 || s.peers.Alive(p.node) {
			return err
		}
		end := s.incident(Peer{ID: id, Door: p.door, Remote: p.remote}, "node", errNodeLost)
		tx.Store.Set(id.activityKey(), activity{Changed: end.Time, Last: p.since, End: end}.encode())
		tx.endPresence(id)
		return nil
	})
}
