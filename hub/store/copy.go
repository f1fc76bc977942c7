package store

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// OpenCopy opens a node's copy in the folder dir without its log, to read what the
// node has applied: when the log is lost. It takes no changes.
//
// Errors: ErrNoState if there is no copy, ErrReplicated if the folder holds a store
// that is not replicated, and those of [Open].
func OpenCopy(dir string) (*Replica, error) {
	abs, err := filepath.Abs(dir)
	if err == nil {
		_, err = os.Stat(abs)
	}
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	r := newReplica(ReplicaOptions{Logger: slog.New(slog.DiscardHandler)})
	r.db, err = openAs(vfs.Default, abs, nil, r)
	if err != nil {
		r.stop()
		return nil, err
	}
	err = r.applier.load(r.db.engine)
	if err == nil && r.applier.state.pos == 0 {
		err = fmt.Errorf("%w: %s holds nothing of it", ErrNoState, dir)
	}
	if err != nil {
		return nil, errors.Join(err, r.db.Close())
	}
	r.publish()
	r.fail(ErrNoLog)
	return r, nil
}
