package store

import (
	"bytes"
	"context"
	"fmt"
	"iter"
)

// Updates run side by side, each with one turn. A Replace takes them all, so that it runs alone. Who asks for a turn
// while a Replace waits waits behind it: that is why no Update may wait for another one.
const allTurns = 1 << 30

// takeTurns waits for turns as long as ctx does. While e's disk is stalled it does not wait and returns the reason: who
// has the turns may keep them for as long as that lasts.
func (db *DB) takeTurns(ctx context.Context, n int64, e *engine) error {
	for !db.turns.TryAcquire(n) {
		waiting, stop := context.WithCancel(ctx)
		stalled := e.disk.stall()
		go func() {
			defer stop()
			select {
			case <-stalled:
			case <-waiting.Done():
			}
		}()
		err := db.turns.Acquire(waiting, n)
		stop()
		if err == nil {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := e.disk.err(); err != nil {
			return err
		}
	}
	return nil
}

// Replace replaces all that the store holds by records, keys with their values, in one step, and returns when that is
// on disk. Whoever opens the store after a crash finds all of the one or all of the other. No Update runs meanwhile:
// those that have begun end before, and others wait; reads see the one or the other. Replace keeps the slices until it
// returns. Before the next Update it has replaced called, which reads what there is now and must not change it.
//
// It waits for Updates as long as ctx does. Of ErrFull and ErrStalled it says the same as [DB.Update]: the change may
// still come, and if it does, replaced is called then. A replicated store cannot be replaced: ErrReplicated.
func (db *DB) Replace(ctx context.Context, records iter.Seq2[[]byte, []byte], replaced func()) (err error) {
	defer func() { db.counts.result(err) }()
	if db.replica != nil {
		return fmt.Errorf("replace %w", ErrReplicated)
	}
	e, err := db.enter()
	if err != nil {
		return err
	}
	if err := db.takeTurns(ctx, allTurns, e); err != nil {
		e.users.Done()
		return fmt.Errorf("replace store: %w", err)
	}
	finish := func(err error) {
		defer e.users.Done()
		defer db.turns.Release(allTurns)
		if err == nil {
			replaced()
		}
	}
	writes, size, err := e.replacement(records)
	if err == nil && e.committer == nil {
		err = e.disk.err()
	}
	if err != nil || len(writes) == 0 {
		finish(err)
		return err
	}
	return e.committer.commit(writes, size, finish)
}

// replacement returns the writes that leave records and nothing else.
func (e *engine) replacement(records iter.Seq2[[]byte, []byte]) (writes []write, size int, err error) {
	it, err := e.NewIter(nil)
	if err != nil {
		return nil, 0, fmt.Errorf("read store: %w", marked(err))
	}
	defer it.Close()
	if it.First() {
		first := bytes.Clone(it.Key())
		it.Last()
		writes = append(writes, write{key: first, end: append(bytes.Clone(it.Key()), 0), deleted: true})
	}
	if err := it.Error(); err != nil {
		return nil, 0, fmt.Errorf("read store: %w", marked(err))
	}
	for key, value := range records {
		writes = append(writes, write{key: key, value: value})
		size += len(key) + len(value)
	}
	return writes, size, nil
}
