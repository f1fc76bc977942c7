package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// What a replica keeps for itself lies in front of all other keys, and nobody else sees it.
var (
	keyApplied = []byte("\x00applied") // the record of a replicaState

	prefixLock   = []byte("\x00lock/")   // + name: the position of its last change
	prefixMember = []byte("\x00member/") // + epoch: the record of a Member
	prefixNode   = []byte("\x00node/")   // + name: the position where a member of the name came or went last

	firstKey = []byte{1} // of those that are not reserved
)

func isReserved(key []byte) bool { return len(key) > 0 && key[0] == 0 }

const hashSize = sha256.Size

// errApply marks an error of the copy itself.
var errApply = errors.New("apply the log")

// An applier is what the goroutine that follows the log has of its own.
type applier struct {
	engine  *engine
	state   replicaState
	members []Member
	counted map[uint64]int64 // of members: the second of the log's time that was counted last
	recent  []chained        // the last ones

	check bool   // the group at the state's position is to be read once more
	first uint64 // where an empty copy begins to read
	batch *pebble.Batch
	locks map[string]uint64 // positions of locks that the batch changes
	known knownLocks
}

// knownLocks are the positions of locks that were changed not long ago, so that they
// need not be read. It never knows of a change that cannot be read yet.
type knownLocks struct {
	mu  sync.RWMutex      // guards what follows
	pos map[string]uint64 // 0: there is none
}

// maxKnownLocks bounds what is known, to some megabytes.
const maxKnownLocks = 50_000

// add is called with the locks that a batch has changed, when that can be read.
func (k *knownLocks) add(locks map[string]uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.pos == nil || len(k.pos)+len(locks) > maxKnownLocks {
		k.pos = make(map[string]uint64)
	}
	maps.Copy(k.pos, locks)
}

// lockPosition returns where a lock was changed last, or 0.
func (a *applier) lockPosition(e *engine, lock string) (uint64, error) {
	a.known.mu.RLock()
	pos, ok := a.known.pos[lock]
	a.known.mu.RUnlock()
	if ok {
		return pos, nil
	}
	return e.position(prefixLock, lock)
}

// recentPositions is how far back hashes are known at least. A group whose sender has not
// read the log for longer is not compared.
const recentPositions = 8192

// load reads the state of a copy.
func (a *applier) load(e *engine) error {
	*a = applier{engine: e, counted: map[uint64]int64{}, locks: map[string]uint64{}, batch: e.NewBatch()}
	record, err := e.get(keyApplied)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if a.state, err = decodeState(record); err != nil {
		return fmt.Errorf("%w: the position of a node of a cluster cannot be read: %w", ErrDamaged, err)
	}
	err = e.scanAll(prefixMember, PrefixEnd(prefixMember), func(key, value []byte) error {
		m, err := decodeMember(key, value)
		if err != nil {
			return fmt.Errorf("%w: a member of the cluster cannot be read: %w", ErrDamaged, err)
		}
		a.members = append(a.members, m)
		return nil
	})
	a.check = true
	a.remember(chained{a.state.pos, a.state.hash})
	return err
}

// next is the position to read from.
func (a *applier) next() uint64 {
	switch {
	case a.state.pos == 0:
		return a.first
	case a.check:
		return a.state.pos
	}
	return a.state.pos + 1
}

func (a *applier) remember(c chained) {
	if len(a.recent) == 2*recentPositions {
		a.recent = a.recent[:copy(a.recent, a.recent[recentPositions:])]
	}
	a.recent = append(a.recent, c)
}

// hashAt returns the hash at a position, if it is known. Positions have no gaps.
func (a *applier) hashAt(pos uint64) (hash [hashSize]byte, ok bool) {
	if len(a.recent) == 0 || pos < a.recent[0].pos || pos-a.recent[0].pos >= uint64(len(a.recent)) {
		return hash, false
	}
	return a.recent[pos-a.recent[0].pos].hash, true
}

// chain returns the hash at a position, from that at the one before and the
// group.
func chain(before [hashSize]byte, pos uint64, group []byte) (hash [hashSize]byte) {
	h := sha256.New()
	h.Write(before[:])
	h.Write(binary.BigEndian.AppendUint64(nil, pos))
	h.Write(group)
	h.Sum(hash[:0])
	return hash
}

// verify reports whether a group fits to what was read before it.
func (a *applier) verify(pos uint64, g *group) error {
	if a.state.pos == 0 {
		return nil
	}
	if g.log != a.state.log {
		return fmt.Errorf("%w: at position %d", ErrOtherLog, pos)
	}
	hash, known := a.hashAt(g.seen.pos)
	if g.seen.pos >= pos || known && hash != g.seen.hash {
		return fmt.Errorf("%w: a node has read up to %d what the log does not hold, as its group at %d says", ErrLogWentBack, g.seen.pos, pos)
	}
	// A member goes on with the next when the log has taken one.
	if s := a.state.sender(g.epoch); s != nil && g.number > s.number+1 {
		return fmt.Errorf("%[1]w: it does not hold group %[2]d of the member %[3]d, and has its group %[5]d at %[4]d", ErrLogWentBack, s.number+1, g.epoch, pos, g.number)
	}
	return nil
}

// An effect is what a group has done.
type effect struct {
	epoch, number uint64
	known         bool   // the group is one of a member, and no copy of an earlier one
	verdicts      []bool // of its steps: whether they were accepted
	accepted      []*changeSet
	joins         []*join
	joined        *join            // the one of joins that was accepted
	ended         map[uint64]error // members that are none any more, and why
}

// apply is called with each group of the log, in order.
func (r *Replica) apply(pos uint64, at time.Time, data []byte) error {
	a := &r.applier
	next := a.next()
	switch {
	case pos < next:
		return nil
	case pos > next:
		return fmt.Errorf("%w: it has no position %d any more, and goes on at %d", ErrLogWentBack, next, pos)
	case a.check && pos == a.state.pos:
		if g, err := decodeGroup(data); err == nil && g.log != a.state.log {
			return ErrOtherLog
		}
		if chain(a.state.prev, pos, data) != a.state.hash {
			return fmt.Errorf("%w: it does not hold at %d what this node has read there", ErrLogWentBack, pos)
		}
		a.check = false
		return nil
	}
	g, err := decodeGroup(data)
	switch {
	case errors.Is(err, ErrNewerLog):
		return fmt.Errorf("%w, at position %d", err, pos)
	case err != nil && a.state.pos == 0:
		return fmt.Errorf("%w: it does not begin as one", ErrOtherLog)
	case err != nil:
		r.logger.Error("a group of the cluster's log is malformed and is passed over by all nodes", "position", pos)
		g = &group{log: a.state.log}
	default:
		if err := a.verify(pos, g); err != nil {
			return err
		}
	}

	// Whoever subscribes meanwhile gets all of this group or none of it.
	r.telling.Lock()
	defer r.telling.Unlock()
	did, err := a.apply(pos, at, g, data)
	if err != nil {
		return err
	}
	r.announce(pos, at, g, did)
	return nil
}

// apply writes what a group does, in one step with the position.
func (a *applier) apply(pos uint64, at time.Time, g *group, data []byte) (*effect, error) {
	did := &effect{epoch: g.epoch, number: g.number, ended: map[uint64]error{}}
	a.batch.Reset()
	clear(a.locks)
	if a.state.pos == 0 {
		if !g.beginsEmpty() {
			return nil, fmt.Errorf("%w: what it began with is in no snapshot", ErrNoState)
		}
		a.state.log = g.log
	}
	a.state.prev, a.state.hash = a.state.hash, chain(a.state.hash, pos, data)
	a.state.pos, a.state.at = pos, at.UnixNano()
	if s := a.state.sender(g.epoch); s != nil && g.number > s.number {
		s.number, s.heard = g.number, pos
		did.known = true
	}
	for _, step := range g.steps {
		ok, err := a.step(pos, at, g.epoch, step, did)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errApply, err)
		}
		did.verdicts = append(did.verdicts, ok)
	}
	if did.known {
		a.count(g.epoch, at.Unix())
	}
	if err := a.batch.Set(keyApplied, a.state.encode(), nil); err != nil {
		return nil, fmt.Errorf("%w: %w", errApply, err)
	}
	late := a.engine.disk.watch()
	err := a.engine.Apply(a.batch, pebble.NoSync)
	late()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errApply, marked(err))
	}
	a.known.add(a.locks)
	a.remember(chained{pos, a.state.hash})
	return did, nil
}

// step carries one step out, or reports that it is not accepted.
func (a *applier) step(pos uint64, at time.Time, epoch uint64, step step, did *effect) (bool, error) {
	if j, ok := step.(*join); ok {
		did.joins = append(did.joins, j)
		if epoch != 0 || did.joined != nil { // one epoch a position
			return false, nil
		}
		return a.join(pos, at, j, did)
	}
	if !did.known || a.state.sender(epoch) == nil { // it may have left a moment ago
		return false, nil
	}
	switch s := step.(type) {
	case *changeSet:
		return a.change(pos, s, did)
	case leave:
		return true, a.remove(pos, epoch, ErrFenced, did)
	case *expel:
		if other := a.state.sender(s.epoch); other == nil || other.heard != s.heard {
			return false, nil
		}
		return true, a.remove(pos, s.epoch, ErrFenced, did)
	case *stored:
		a.state.note(snapshotMark{s.pos, at.UnixNano()})
		return true, nil
	case *sweep:
		return true, a.sweep(s)
	}
	return false, nil
}

// change makes the writes of a changeSet, unless its lock was changed since.
func (a *applier) change(pos uint64, c *changeSet, did *effect) (bool, error) {
	last, ok := a.locks[c.lock]
	if !ok {
		var err error
		if last, err = a.lockPosition(a.engine, c.lock); err != nil {
			return false, err
		}
	}
	// A lock that is not known was not changed since the base, or was swept since.
	if last != c.expected || last == 0 && c.base < a.state.swept {
		return false, nil
	}
	for _, w := range c.writes {
		if err := w.apply(a.batch); err != nil {
			return false, err
		}
	}
	a.locks[c.lock] = pos
	did.accepted = append(did.accepted, c)
	return true, a.mark(prefixLock, c.lock, pos)
}

// sweepLocks is how many locks one sweep looks at, so that nobody waits for it.
const sweepLocks = 2000

// sweep forgets old locks.
func (a *applier) sweep(s *sweep) error {
	a.state.swept = max(a.state.swept, min(s.before, a.state.pos))
	start, end := append(slices.Clone(prefixLock), s.from...), append(slices.Clone(prefixLock), s.to...)
	if bytes.Compare(start, end) >= 0 {
		return nil
	}
	looked := 0
	return a.engine.scanAll(start, end, func(key, value []byte) error {
		if looked++; looked > sweepLocks {
			return ErrStop
		}
		name := string(key[len(prefixLock):])
		if _, changed := a.locks[name]; changed || len(value) != 8 || binary.BigEndian.Uint64(value) >= s.before {
			return nil
		}
		a.locks[name] = 0
		return a.batch.Delete(key, nil)
	})
}

// join makes a member, unless one of the name has come or gone since.
func (a *applier) join(pos uint64, at time.Time, j *join, did *effect) (bool, error) {
	last, err := a.engine.position(prefixNode, j.name)
	if err != nil || last != j.expected {
		return false, err
	}
	for _, m := range a.members {
		if m.Name == j.name {
			if err := a.remove(pos, m.Epoch, ErrReplaced, did); err != nil {
				return false, err
			}
		}
	}
	m := Member{Epoch: pos, Name: j.name, About: bytes.Clone(j.about), Joined: at, heard: pos}
	a.members = append(slices.Clone(a.members), m)
	a.state.senders = append(a.state.senders, sender{epoch: pos, heard: pos})
	did.joined = j
	if err := a.batch.Set(memberKey(pos), m.encode(), nil); err != nil {
		return false, err
	}
	return true, a.mark(prefixNode, j.name, pos)
}

// remove ends an epoch.
func (a *applier) remove(pos, epoch uint64, why error, did *effect) error {
	did.ended[epoch] = why
	delete(a.counted, epoch)
	a.state.senders = slices.DeleteFunc(a.state.senders, func(s sender) bool { return s.epoch == epoch })
	i := slices.IndexFunc(a.members, func(m Member) bool { return m.Epoch == epoch })
	if i < 0 {
		return nil
	}
	name := a.members[i].Name
	a.members = slices.Delete(slices.Clone(a.members), i, i+1)
	if err := a.batch.Delete(memberKey(epoch), nil); err != nil {
		return err
	}
	return a.mark(prefixNode, name, pos)
}

// mark stores the position of a name.
func (a *applier) mark(prefix []byte, name string, pos uint64) error {
	return a.batch.Set(append(slices.Clone(prefix), name...), binary.BigEndian.AppendUint64(nil, pos), nil)
}

// position returns the position of a name, or 0.
func (e *engine) position(prefix []byte, name string) (uint64, error) {
	value, err := e.get(append(slices.Clone(prefix), name...))
	switch {
	case errors.Is(err, ErrNotFound):
		return 0, nil
	case err != nil:
		return 0, err
	case len(value) != 8:
		return 0, fmt.Errorf("%w: the position of %q", ErrDamaged, name)
	}
	return binary.BigEndian.Uint64(value), nil
}

// count counts in how many seconds others were heard since a member was.
func (a *applier) count(epoch uint64, second int64) {
	members := slices.Clone(a.members)
	for i := range members {
		m := &members[i]
		switch {
		case m.Epoch == epoch:
			m.Silent, m.heard = 0, a.state.pos
		case a.counted[m.Epoch] != second: // a clock may go back
			m.Silent++
		}
		a.counted[m.Epoch] = second
	}
	a.members = members
}

// announce tells of a group that was applied.
func (r *Replica) announce(pos uint64, at time.Time, g *group, did *effect) {
	a := &r.applier
	r.mu.Lock()
	r.members = a.members
	self := r.self
	r.mu.Unlock()
	mine := self != nil && self.epoch == g.epoch && g.epoch != 0

	index := 0
	for _, c := range did.accepted {
		r.db.listeners.tell(c.writes, c.told, pos, index, mine)
		index += len(c.told)
	}
	if did.joined != nil || len(did.ended) > 0 {
		r.watchers.tell()
	}
	for _, j := range did.joins {
		r.answerJoin(j, pos, did.joined == j)
	}
	r.publish()
	if mine && did.known {
		self.deliver(did.number, did.verdicts)
	}
	if self != nil {
		if why := did.ended[self.epoch]; why != nil {
			self.end(why)
		}
	}
}

// publish makes the position that was applied known.
func (r *Replica) publish() {
	s := &r.applier.state
	r.mu.Lock()
	defer r.mu.Unlock()
	r.id, r.applied, r.at, r.members = s.log, chained{s.pos, s.hash}, time.Unix(0, s.at), r.applier.members
	for w := range r.waiting {
		if w.pos <= s.pos {
			close(w.reached)
			delete(r.waiting, w)
		}
	}
}

// scanAll is scan with the keys that are reserved.
func (e *engine) scanAll(start, end []byte, fn func(key, value []byte) error) error {
	return scan(e.DB, start, end, fn)
}
