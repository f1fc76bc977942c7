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
	held chan struct{} // has one element while it is held
	refs int           // holders and waiters
}

func newLockSet() *lockSet {
	s := &lockSet{seed: maphash.MakeSeed()}
	for i := range s.shards {
		s.shards[i].locks = map[string]*nameLock{}
	}
	return s
}

// A staller may have a reason not to wait any more: then the channel is closed, and err returns it.
type staller interface {
	stall() <-chan struct{}
	err() error
}

// acquire waits for the lock of name and returns the function that releases it. While d is stalled it waits for
// nobody and returns the reason: whoever holds the lock may have left it to the engine for as long as that lasts.
func (s *lockSet) acquire(name string, d staller) (release func(), err error) {
	shard := &s.shards[maphash.String(s.seed, name)%uint64(len(s.shards))]
	l := shard.ref(name)
	release = func() {
		<-l.held
		shard.unref(name, l)
	}
	select {
	case l.held <- struct{}{}:
		return release, nil
	default:
	}
	for {
		select {
		case l.held <- struct{}{}:
			return release, nil
		case <-d.stall():
			if err := d.err(); err != nil {
				shard.unref(name, l)
				return nil, err
			}
		}
	}
}

func (s *lockShard) ref(name string) *nameLock {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.locks[name]
	if l == nil {
		l = &nameLock{held: make(chan struct{}, 1)}
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
