package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"
)

// Records call record with each key and value of a state, in the order of the
// keys, and return its error.
type Records func(record func(key, value []byte) error) error

// Records are those of the store, as it is at one instant when they are asked for.
func (db *DB) Records(record func(key, value []byte) error) error {
	return db.Scan(nil, nil, record)
}

// StartLog begins an empty log, with a state or, if from is nil, with nothing.
//
// Errors: ErrBegun, ErrNoLog, and those of the log, the snapshots and from. After
// one, an empty log can be begun again.
func StartLog(ctx context.Context, log Log, snapshots Snapshots, from Records) error {
	patiently := func(fn func(context.Context) error) error {
		ctx, cancel := context.WithTimeout(ctx, logPatience)
		defer cancel()
		if err := ask(ctx, fn); err != nil {
			return fmt.Errorf("%w: %w", ErrNoLog, err)
		}
		return nil
	}
	var first, pos uint64
	bounds := func(ctx context.Context) (err error) {
		first, pos, err = log.Bounds(ctx)
		return err
	}
	if err := patiently(bounds); err != nil {
		return err
	}
	if first != pos {
		return ErrBegun
	}
	g := group{steps: []step{&begin{stocked: from != nil}}}
	_, _ = rand.Read(g.log[:])
	data := g.encode(0)
	if from != nil {
		s := replicaState{log: g.log, pos: pos, hash: chain([hashSize]byte{}, pos, data), at: time.Now().UnixNano()}
		err := put(ctx, snapshots, pos, func(w *snapshotWriter) error {
			if err := w.record(keyApplied, s.encode()); err != nil {
				return err
			}
			return from(func(key, value []byte) error {
				if len(key) == 0 || isReserved(key) {
					return fmt.Errorf("the key %q is reserved", key)
				}
				return w.record(key, value)
			})
		})
		if err != nil {
			return fmt.Errorf("snapshot: %w", err)
		}
	}
	at, id := pos, fmt.Sprintf("begin.%x", g.log)
	err := patiently(func(ctx context.Context) error { return log.Append(ctx, id, data) })
	if err == nil {
		err = patiently(bounds)
	}
	if err == nil && pos != at+1 {
		err = errors.New("begin the log: somebody else has written to it")
	}
	return err
}

// Backup writes what this node has applied, at one position. [ReadBackup] reads
// it.
func (r *Replica) Backup(to io.Writer) error {
	_, err := r.save(func(pos uint64, write func(*snapshotWriter) error) error {
		w, err := newSnapshotWriter(to)
		if err == nil {
			err = write(w)
		}
		if err == nil {
			err = w.end()
		}
		return err
	})
	return err
}

// ReadBackup returns the Records of a backup, without what belongs to the log that
// it is of. They can be asked for once. Their error is the only word that all of
// them were good.
func ReadBackup(from io.Reader) Records {
	return func(record func(key, value []byte) error) error {
		return readSnapshot(from, func(key, value []byte) error {
			if isReserved(key) {
				return nil
			}
			return record(key, value)
		})
	}
}

// Write makes a store that is not replicated in the folder dir, which must hold
// none. After an error the folder is not to be used.
func Write(dir string, records Records, logger *slog.Logger) (err error) {
	db, err := Open(dir, logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if keys, err := db.engine.keys(nil, nil, 1); err != nil || len(keys) > 0 {
		return errors.Join(err, fmt.Errorf("%s holds a store already", dir))
	}
	var held Tx
	flush := func() error {
		err := db.Update("", func(tx *Tx) error { tx.writes, tx.size = held.writes, held.size; return nil })
		held = Tx{}
		return err
	}
	err = records(func(key, value []byte) error {
		held.Set(key, value)
		if held.size < maxGroup {
			return nil
		}
		return flush()
	})
	return errors.Join(err, flush())
}
