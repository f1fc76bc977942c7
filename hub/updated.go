package hub

import (
	"errors"
	"time"

	"github.com/iotdm/iotdm/hub/internal/disk"
	"github.com/iotdm/iotdm/hub/query"
	"github.com/iotdm/iotdm/hub/store"
)

// Twins are in an index by the minute in which their desired or reported
// properties were written last, so that queries for what changed lately need not
// read everything. A twin that is written more than once in a minute changes its
// place once. The index may have places too many, but every twin has its own.

func updatedPrefix(modules bool) string {
	if modules {
		return disk.UpdatedModule
	}
	return disk.UpdatedDevice
}

// A minute counts from the year 1970.
type minute uint32

func minuteOf(t time.Time) minute { return minute(max(0, t.Unix()/60)) }

// key returns the place of a twin that was written in the minute.
func (m minute) key(id ID) []byte {
	return disk.UpdatedKey(updatedPrefix(id.Module != ""), uint32(m), id.String())
}

// from returns where the places of the minute begin.
func (m minute) from(modules bool) []byte {
	return disk.UpdatedKey(updatedPrefix(modules), uint32(m), "")
}

// updatedMinute returns when the newer of two sections was written, of which it
// is given the metadata.
func updatedMinute(desired, reported []byte) (m minute) {
	for _, metadata := range [][]byte{desired, reported} {
		text := query.JSON(metadata).Get("$lastUpdated").Chars()
		if t, err := time.Parse(time.RFC3339, string(text)); err == nil {
			m = max(m, minuteOf(t))
		}
	}
	return m
}

// minuteFrom returns the minute of a time that may be cut short anywhere, such as
// "2026-05". No complete time that is not below text is in an earlier one.
func minuteFrom(text string) minute {
	for _, layout := range []string{"2006-01-02T15:04", "2006-01-02", "2006-01", "2006"} {
		if len(text) < len(layout) {
			continue
		}
		if t, err := time.Parse(layout, text[:len(layout)]); err == nil {
			return minuteOf(t)
		}
	}
	return 0
}

// place returns where the index has the twin as it was read.
func (t *Twin) place() minute { return updatedMinute(t.storedDesired, t.storedReported) }

// indexTwins makes the index for a store that is older than it.
func (s *Server) indexTwins() error {
	if _, err := s.store.Get([]byte(disk.UpdatedIndex)); !errors.Is(err, store.ErrNotFound) {
		return err
	}
	const batch = 1000
	var keys [][]byte
	write := func(more ...[]byte) error {
		err := s.store.Update(disk.UpdatedDevice, func(tx *store.Tx) error {
			for _, key := range append(keys, more...) {
				tx.Set(key, nil)
			}
			return nil
		})
		keys = keys[:0]
		return err
	}
	for _, prefix := range [][]byte{[]byte(disk.DeviceTwin), []byte(disk.ModuleTwin)} {
		err := s.store.Scan(prefix, store.PrefixEnd(prefix), func(k, v []byte) error {
			t, err := decodeTwin(v)
			if err != nil {
				return err
			}
			if keys = append(keys, t.place().key(keyID(k))); len(keys) < batch {
				return nil
			}
			return write()
		})
		if err != nil {
			return err
		}
	}
	return write([]byte(disk.UpdatedIndex))
}

// maxUpdatedNames is how many twins are looked up one by one. One among more of
// them is found as fast by reading all.
const maxUpdatedNames = 4096

// updatedNames returns the names of the twins that were written in or after a
// minute, unless there are many.
func (sc *scan) updatedNames(from minute) (names []string, few bool, err error) {
	modules := sc.query.From() == query.Modules
	prefix := updatedPrefix(modules)
	c, err := sc.view.Cursor(from.from(modules), store.PrefixEnd([]byte(prefix)))
	if err != nil {
		return nil, false, err
	}
	for ok := c.Seek(from.from(modules)); ok && len(names) <= maxUpdatedNames; ok = c.Next() {
		names = append(names, string(c.Key()[len(prefix)+4:]))
	}
	return names, len(names) <= maxUpdatedNames, c.Close()
}
