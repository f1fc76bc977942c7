package store

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"github.com/iotdm/iotdm/internal/wait"
)

// maxGroup is the size in bytes at which the committer stops adding changes to a group, so that nobody waits for a
// fsync of more.
const maxGroup = 1 << 20

// A committer writes what Updates hand in. One goroutine takes everything that has come in while it was writing the
// last group and writes it with one fsync.
//
// The engine can group writes of many callers by itself. A goroutine of our own keeps callers out of the engine, which
// holds whoever is inside it when the disk fills up, for as long as that lasts: see [disk].
type committer struct {
	engine *pebble.DB
	disk   *disk
	wake   wait.Signal   // queue may have something
	ended  chan struct{} // closed when the goroutine has returned

	mu     sync.Mutex // guards what follows
	queue  []*commit
	closed bool
}

// A commit is the change of one Update on its way to the disk.
type commit struct {
	writes []write
	size   int
	finish func(error) // what the Update does at its end; called by whoever wins state
	result chan error  // the error of the write, unless the Update has gone
	state  atomic.Int32
}

// The states of a commit. The Update and the committer both move it on, by compare-and-swap.
const (
	queued  int32 = iota
	writing       // handed to the engine
	written       // the Update gets the result
	left          // the Update has gone: the committer finishes it
	refused       // the Update has gone before the committer came to it: nothing is written
)

func startCommitter(engine *pebble.DB, d *disk) *committer {
	c := &committer{engine: engine, disk: d, wake: wait.NewSignal(), ended: make(chan struct{})}
	go c.run()
	return c
}

// close waits until the queue is empty and ends the goroutine.
func (c *committer) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.wake.Set()
	<-c.ended
}

// commit hands writes in, waits until they are on disk, and calls finish with the result. If the disk fills up
// meanwhile, or does not answer, it returns [ErrFull] or [ErrStalled] and leaves the rest to the committer: what the
// engine has taken it may write once there is space, and finish is called when that is known.
func (c *committer) commit(writes []write, size int, finish func(error)) error {
	m := &commit{writes: writes, size: size, finish: finish, result: make(chan error, 1)}
	c.mu.Lock()
	c.queue = append(c.queue, m)
	c.mu.Unlock()
	c.wake.Set()

	for {
		select {
		case err := <-m.result:
			finish(err)
			return err
		case <-c.disk.stall():
			err := c.disk.err()
			switch {
			case err == nil: // over already
			case m.state.CompareAndSwap(queued, refused):
				finish(err)
				return err
			case m.state.CompareAndSwap(writing, left):
				return err
			}
		}
	}
}

func (c *committer) run() {
	defer close(c.ended)
	batch := c.engine.NewBatch()
	defer func() { _ = batch.Close() }()
	for range c.wake {
		c.mu.Lock()
		queue, closed := c.queue, c.closed
		c.queue = nil
		c.mu.Unlock()
		for len(queue) > 0 {
			n, size := 0, 0
			for n < len(queue) && (n == 0 || size+queue[n].size <= maxGroup) {
				size += queue[n].size
				n++
			}
			c.write(batch, queue[:n], size)
			queue = queue[n:]
		}
		if closed {
			return
		}
	}
}

// write writes one group and tells its Updates.
func (c *committer) write(batch *pebble.Batch, group []*commit, size int) {
	err := c.disk.room(size)
	if err == nil {
		batch.Reset()
		for _, m := range group {
			if !m.state.CompareAndSwap(queued, writing) {
				continue
			}
			for _, w := range m.writes {
				if err = w.apply(batch); err != nil {
					panic(err) // an append to memory
				}
			}
		}
		done := c.disk.watch()
		if err = batch.Commit(pebble.Sync); err != nil {
			err = fmt.Errorf("write store: %w", err)
		}
		done()
	}
	for _, m := range group {
		switch {
		case m.state.CompareAndSwap(writing, written), m.state.CompareAndSwap(queued, written):
			m.result <- err
		case m.state.Load() == left:
			// Hooks are the caller's code and may wait for another Update.
			go m.finish(err)
		}
	}
}
