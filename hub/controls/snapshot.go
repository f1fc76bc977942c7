package controls

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"time"

	"github.com/iotdm/iotdm/hub"
)

// A Snapshot is a state of the hub that has been put by under a name.
type Snapshot struct {
	Name  string
	Taken time.Time // by the machine's clock
	Bytes int64
}

var namePattern = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$`)

func checkName(name string) error {
	if !namePattern.MatchString(name) {
		return hub.ErrArgumentInvalid.With("the name of a snapshot must be 1 to 64 letters, digits or any of . _ - and not begin with a dot")
	}
	return nil
}

// SaveSnapshot puts by what the hub has, under a name, in place of what there was
// under it: identities, twins, messages that wait, jobs, configurations and CA
// certificates, but no events, and neither policies nor the clock. The hub goes
// on meanwhile; the snapshot is of one instant.
//
// Errors: hub.ErrArgumentInvalid for the name.
func (c *Controls) SaveSnapshot(name string) (s Snapshot, err error) {
	if err := checkName(name); err != nil {
		return Snapshot{}, err
	}
	err = c.change(func() error {
		data, err := encode(c.opt.Store)
		if err != nil {
			return fmt.Errorf("save snapshot %s: %w", name, err)
		}
		if err := c.shelf.put(name, data); err != nil {
			return fmt.Errorf("save snapshot %s: %w", name, err)
		}
		s, err = c.shelf.look(name)
		return err
	})
	return s, err
}

// LoadSnapshot makes the hub what it was when the snapshot was saved, as Reset
// makes it what it was at first: whatever is said there holds, but that the clock
// stays as it is. Jobs that had not ended go on as after a restart.
//
// Errors: hub.ErrArgumentInvalid for the name, hub.ErrSnapshotNotFound, and
// ErrDamaged; after those the hub is as it was.
func (c *Controls) LoadSnapshot(ctx context.Context, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	return c.change(func() error {
		data, err := c.shelf.get(name)
		if err != nil {
			return snapshotError("load", name, err)
		}
		records, err := decode(data)
		if err != nil {
			return snapshotError("load", name, err)
		}
		nothing := func() error { return nil }
		if err := c.replace(ctx, records, nothing, nothing); err != nil {
			return snapshotError("load", name, err)
		}
		return nil
	})
}

// Snapshots returns the snapshots in the order of their names.
func (c *Controls) Snapshots() ([]Snapshot, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.shelf.list()
}

// DeleteSnapshot removes a snapshot.
//
// Errors: hub.ErrArgumentInvalid for the name, hub.ErrSnapshotNotFound.
func (c *Controls) DeleteSnapshot(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	return c.change(func() error {
		if err := c.shelf.remove(name); err != nil {
			return snapshotError("delete", name, err)
		}
		return nil
	})
}

func snapshotError(what, name string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return hub.ErrSnapshotNotFound.With("there is no snapshot %q", name)
	case errors.Is(err, ErrDamaged):
		return hub.ErrSnapshotDamaged.With("snapshot %q cannot be read: %v", name, err)
	}
	return fmt.Errorf("%s snapshot %s: %w", what, name, err)
}
