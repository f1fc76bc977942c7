package store

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// A Change is what an Update has done to a key.
type Change struct {
	Key   []byte
	Value []byte // nil: the key is gone
	End   []byte // if it is not nil, all keys from Key up to End are gone

	Pos  uint64 // of the Update in the log of a replicated store; 0 without one, and for what was there before
	Mine bool   // an Update of this DB did it
}

// A Notice is what an Update has told. Pos and Index, which counts the notices
// of one position, order all notices of a replicated store, on every node alike.
type Notice struct {
	Data  []byte
	Pos   uint64
	Index int
	Mine  bool // an Update of this DB told it
}

// A subscription is to the keys of a prefix.
type subscription struct {
	prefix string
	fn     func(Change)
}

// A hearer hears what is told of a kind.
type hearer struct {
	kind string
	fn   func(Notice)
}

// listeners are who is told of Updates. The lists are replaced, never changed.
type listeners struct {
	mu   sync.Mutex // of those who replace them
	subs atomic.Pointer[[]*subscription]
	hear atomic.Pointer[[]*hearer]
}

// told is one notice of a Tx.
type told struct {
	kind string
	data []byte
}

// Tell has data told to who hears of its kind, on every node of a replicated
// store, when the changes are durable. It is not stored. It keeps the slice.
func (tx *Tx) Tell(kind string, data []byte) {
	if tx.told == nil {
		tx.told = make([]told, 0, 2) // an event and its change, as a rule
	}
	tx.told = append(tx.told, told{kind, data})
}

// Subscribe calls fn with each key that begins with prefix and its value, and
// from then on with every change of one, after it is durable and before the next
// Update of its lock, on every node of a replicated store. The changes of a key
// come in order; those of different locks may come at the same time.
//
// fn must not wait, and must not call the DB but to read. The slices are valid
// only until it returns. Nothing comes any more once cancel has returned, but
// what is coming then.
func (db *DB) Subscribe(prefix string, fn func(Change)) (cancel func(), err error) {
	s := &subscription{prefix, fn}
	err = db.still(func(e *engine) error {
		err := e.scan([]byte(prefix), PrefixEnd([]byte(prefix)), func(key, value []byte) error {
			fn(Change{Key: key, Value: value})
			return nil
		})
		if err == nil {
			replace(&db.listeners, &db.listeners.subs, s, true)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return func() { replace(&db.listeners, &db.listeners.subs, s, false) }, nil
}

// OnTell has fn called with what is told of a kind, as Subscribe does with
// changes.
func (db *DB) OnTell(kind string, fn func(Notice)) (cancel func()) {
	h := &hearer{kind, fn}
	replace(&db.listeners, &db.listeners.hear, h, true)
	return func() { replace(&db.listeners, &db.listeners.hear, h, false) }
}

func replace[T comparable](l *listeners, list *atomic.Pointer[[]T], v T, add bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var next []T
	if old := list.Load(); old != nil {
		next = slices.DeleteFunc(slices.Clone(*old), func(o T) bool { return o == v })
	}
	if add {
		next = append(next, v)
	}
	list.Store(&next)
}

// still calls fn while nothing changes.
func (db *DB) still(fn func(*engine) error) error {
	e, err := db.enter()
	if err != nil {
		return err
	}
	defer e.users.Done()
	if db.replica != nil {
		db.replica.telling.Lock()
		defer db.replica.telling.Unlock()
		return fn(e)
	}
	if err := db.takeTurns(context.Background(), allTurns, e); err != nil {
		return err
	}
	defer db.turns.Release(allTurns)
	return fn(e)
}

// tell tells of the writes and notices of one Update. index is that of its first
// notice.
func (l *listeners) tell(writes []write, notices []told, pos uint64, index int, mine bool) {
	if subs := l.subs.Load(); subs != nil {
		for i := range writes {
			w := &writes[i]
			for _, s := range *subs {
				if w.touches(s.prefix) {
					s.fn(Change{Key: w.key, Value: w.value, End: w.end, Pos: pos, Mine: mine})
				}
			}
		}
	}
	if hear := l.hear.Load(); hear != nil {
		for i := range notices {
			for _, h := range *hear {
				if h.kind == notices[i].kind {
					h.fn(Notice{Data: notices[i].data, Pos: pos, Index: index + i, Mine: mine})
				}
			}
		}
	}
}

// touches reports whether w changes a key with the prefix.
func (w *write) touches(prefix string) bool {
	if w.end == nil {
		return len(w.key) >= len(prefix) && string(w.key[:len(prefix)]) == prefix
	}
	end := PrefixEnd([]byte(prefix))
	return strings.Compare(string(w.end), prefix) > 0 && (end == nil || bytes.Compare(w.key, end) < 0)
}
