package hub

import (
	"context"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/iotdm/iotdm/hub/internal/disk"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/hub/journal"
)

// An Incident is why a connection was refused, or has ended. It is for who
// operates the hub: a peer that is refused learns nothing of it.
type Incident struct {
	Time   time.Time
	Reason string // a word of the hub's metrics, such as "unauthorized" or "taken_over"
	Detail string // the same in full; what a peer has sent is in quotes and cut
	Door   string // by which the peer came: the word of the hub's metrics, such as "mqtts"
	Remote string // address of the peer
}

func (s *Server) incident(p Peer, reason string, why error) *Incident {
	var detail string
	if e, ok := errors.AsType[*Error](why); ok && e.Code == ErrUnauthorizedAccess.Code {
		detail = e.Text // the name says nothing
	} else {
		detail = why.Error()
	}
	return &Incident{s.Now(), reason, words.Clip(detail), p.Door, p.Remote}
}

// A Refusal is a connection, or a request of one, that was not accepted. ID is
// whom the peer claimed to be, which need not exist, and is zero if that did not
// show.
type Refusal struct {
	ID ID
	Incident
}

// maxRecentRefusals bounds those that are remembered whoever it was, and
// maxUnstoredRefusals the identities whose last one is not stored yet. What is
// more than that leaves no trace but in the counts: peers can cause refusals as
// often as they like.
const (
	maxRecentRefusals   = 20
	maxUnstoredRefusals = 10_000
)

// refusals are what is in memory of refused connections.
type refusals struct {
	mu       sync.Mutex // guards what follows; never held over I/O
	counts   map[string]uint64
	recent   []Refusal        // the newest last
	unstored map[ID]*Incident // the last one of each identity
}

func (r *refusals) init() {
	r.counts = make(map[string]uint64)
	r.unstored = make(map[ID]*Incident)
}

// Refused remembers that a door has not accepted a peer: whom it claimed to be,
// as far as that shows, and where it came from. The reason is a word of the
// door's metrics. Of an identity that exists the last one is kept, and outlives
// the hub if that is not killed within activityDelay.
func (s *Server) Refused(p Peer, reason string, why error) {
	exists := false
	if p.ID.Device != "" {
		_, err := s.store.Get(p.ID.identityKey())
		exists = err == nil
	}
	i := s.incident(p, reason, why)
	s.noteConnection(p, journal.Refused, why)
	r := &s.refusals
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts[reason]++
	if len(r.recent) == maxRecentRefusals {
		r.recent = append(r.recent[:0], r.recent[1:]...)
	}
	r.recent = append(r.recent, Refusal{p.ID, *i})
	if _, known := r.unstored[p.ID]; exists && (known || len(r.unstored) < maxUnstoredRefusals) {
		r.unstored[p.ID] = i
	}
}

// Refusals are what a hub remembers of refusals.
type Refusals struct {
	Since  time.Time         // when the hub was started; of several nodes, the first of these
	Counts map[string]uint64 // how many there were since then, by reason
	Recent []Refusal         // the last ones, the newest first
}

// refusalsVerb asks a node whom it has refused.
const refusalsVerb = "refusals"

// Refusals returns the last refusals, by whichever node of the hub that tells in
// time.
func (s *Server) Refusals(ctx context.Context) Refusals {
	sum := s.ownRefusals()
	askAll(ctx, s, refusalsVerb, struct{}{}, func(_ uint64, other Refusals, err error) {
		if err != nil {
			return
		}
		if other.Since.Before(sum.Since) {
			sum.Since = other.Since
		}
		for reason, n := range other.Counts {
			sum.Counts[reason] += n
		}
		sum.Recent = append(sum.Recent, other.Recent...)
	})
	slices.SortStableFunc(sum.Recent, func(a, b Refusal) int { return b.Time.Compare(a.Time) })
	sum.Recent = sum.Recent[:min(len(sum.Recent), maxRecentRefusals)]
	return sum
}

// ownRefusals is Refusals of this node.
func (s *Server) ownRefusals() Refusals {
	r := &s.refusals
	r.mu.Lock()
	defer r.mu.Unlock()
	recent := slices.Clone(r.recent)
	slices.Reverse(recent)
	return Refusals{Since: s.Started(), Counts: maps.Clone(r.counts), Recent: recent}
}

// incidents are the last ones of an identity. Either is nil if none is known.
type incidents struct{ Refused, Ended *Incident }

// incidentsVerb asks a node for incidents that it has not stored yet.
const incidentsVerb = "incidents"

// Incidents returns the last refusal of an identity, and the last end of a
// connection of it, by whichever node of the hub that tells in time. Either is nil
// if none is known.
func (s *Server) Incidents(ctx context.Context, id ID) (refused, ended *Incident) {
	var others incidents
	askAll(ctx, s, incidentsVerb, id, func(_ uint64, other incidents, _ error) {
		others.Refused, others.Ended = later(others.Refused, other.Refused), later(others.Ended, other.Ended)
	})
	last, recent := s.unstoredIncidents(id) // behind what others do not have any more because it is stored
	if last.Refused == nil {
		if data, err := s.store.Get(id.refusalKey()); err == nil {
			last.Refused, _ = decodeIncident(data)
		}
	}
	if !recent {
		if data, err := s.store.Get(id.activityKey()); err == nil {
			last.Ended = decodeEnd(data)
		}
	}
	return later(last.Refused, others.Refused), later(last.Ended, others.Ended)
}

// unstoredIncidents returns what this node has not stored yet, and whether a
// connection is among that, which may have had no end.
func (s *Server) unstoredIncidents(id ID) (last incidents, recent bool) {
	s.refusals.mu.Lock()
	last.Refused = s.refusals.unstored[id]
	s.refusals.mu.Unlock()
	s.links.mu.RLock()
	defer s.links.mu.RUnlock()
	a, recent := s.links.activity[id]
	last.Ended = a.End
	return last, recent
}

func later(a, b *Incident) *Incident {
	if a == nil || b != nil && b.Time.After(a.Time) {
		return b
	}
	return a
}

// forget forgets all but the counts.
func (r *refusals) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.recent = nil
	clear(r.unstored)
}

// pending returns the refusals that are not in the store yet.
func (r *refusals) pending() map[ID]*Incident {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.unstored)
}

// stored forgets what has been stored.
func (r *refusals) stored(done map[ID]*Incident) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, i := range done {
		if r.unstored[id] == i {
			delete(r.unstored, id)
		}
	}
}

// incidentFormat is the first byte of a stored incident.
const incidentFormat = 1

func (i *Incident) append(b []byte) []byte {
	b = binary.AppendVarint(append(b, incidentFormat), i.Time.UnixNano())
	for _, text := range []string{i.Reason, i.Detail, i.Door, i.Remote} {
		b = disk.AppendText(b, text)
	}
	return b
}

func decodeIncident(data []byte) (*Incident, error) {
	r := disk.Read("incident", data, incidentFormat)
	i := &Incident{Time: time.Unix(0, r.Signed()).UTC()}
	for _, text := range []*string{&i.Reason, &i.Detail, &i.Door, &i.Remote} {
		*text = string(r.Text())
	}
	if err := r.Err(); err != nil {
		return nil, err
	}
	return i, nil
}
