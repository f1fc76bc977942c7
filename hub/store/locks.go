package store

import (
	"hash/maphash"
	"sync"
)

// keyLocks is a set of mutexes by name. It holds only the names in use, so it is as large as the number of callers.
type keyLocks struct {
	once   sync.Once
	seed   maphash.Seed
	shards [64]lockShard
}

type lockShard struct {
	mu    sync.Mutex // guards what follows; never held while waiting for a keyLock
	locks map[string]*keyLock
	spare *keyLock // the last one released, to save an allocation
}

type keyLock struct {
	mu   sync.Mutex
	refs int // holders and waiters
}

// acquire waits for the lock of name and returns the function that releases it.
func (l *keyLocks) acquire(name string) (release func()) {
	l.once.Do(func() { l.seed = maphash.MakeSeed() })
	s := &l.shards[maphash.String(l.seed, name)%uint64(len(l.shards))]
	k := s.ref(name)
	k.mu.Lock()
	return func() {
		k.mu.Unlock()
		s.unref(name, k)
	}
}

func (s *lockShard) ref(name string) *keyLock {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.locks[name]
	if k == nil {
		k, s.spare = s.spare, nil
		if k == nil {
			k = new(keyLock)
		}
		if s.locks == nil {
			s.locks = map[string]*keyLock{}
		}
		s.locks[name] = k
	}
	k.refs++
	return k
}

func (s *lockShard) unref(name string, k *keyLock) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k.refs--; k.refs == 0 {
		delete(s.locks, name)
		s.spare = k
	}
}
