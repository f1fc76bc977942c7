package store

import (
	"hash/maphash"
	"sync"
)

// A lockSet is a set of mutexes by name. It holds only names in use, so it is as large as the number of callers.
type lockSet struct {
	seed   maphash.Seed
	shards [64]lockShard
}

type lockShard struct {
	mu    sync.Mutex // guards what follows; never held while waiting for a nameLock
	locks map[string]*nameLock
}

type nameLock struct {
	mu   sync.Mutex
	refs int // holders and waiters
}

func newLockSet() *lockSet {
	s := &lockSet{seed: maphash.MakeSeed()}
	for i := range s.shards {
		s.shards[i].locks = map[string]*nameLock{}
	}
	return s
}

// acquire waits for the lock of name and returns the function that releases it.
func (s *lockSet) acquire(name string) (release func()) {
	shard := &s.shards[maphash.String(s.seed, name)%uint64(len(s.shards))]
	l := shard.ref(name)
	l.mu.Lock()
	return func() {
		l.mu.Unlock()
		shard.unref(name, l)
	}
}

func (s *lockShard) ref(name string) *nameLock {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.locks[name]
	if l == nil {
		l = new(nameLock)
		s.locks[name] = l
	}
	l.refs++
	return l
}

func (s *lockShard) unref(name string, l *nameLock) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.refs--; l.refs == 0 {
		delete(s.locks, name)
	}
}
