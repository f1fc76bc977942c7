package hub

import (
	"cmp"
	"encoding/json"
	"errors"
	"strings"
	"sync"

	"github.com/iotdm/iotdm/hub/internal/words"
)

// An ImportMode says what a bulk entry does; see "Import and export IoT Hub
// device identities in bulk".
type ImportMode string

// The import modes. The empty mode is ImportCreateOrUpdate.
const (
	ImportCreateOrUpdate            ImportMode = "createOrUpdate"
	ImportCreate                    ImportMode = "create"
	ImportUpdate                    ImportMode = "update"
	ImportUpdateIfMatchETag         ImportMode = "updateIfMatchETag"
	ImportCreateOrUpdateIfMatchETag ImportMode = "createOrUpdateIfMatchETag"
	ImportDelete                    ImportMode = "delete"
	ImportDeleteIfMatchETag         ImportMode = "deleteIfMatchETag"
	ImportUpdateTwin                ImportMode = "updateTwin"
	ImportUpdateTwinIfMatchETag     ImportMode = "updateTwinIfMatchETag"
)

// importRules say of each mode what it may do.
var importRules = map[ImportMode]struct {
	create, update bool // the identity
	remove         bool
	twin           bool // the twin alone
	match          bool // only with the etag of the entry
}{
	ImportCreateOrUpdate:            {create: true, update: true},
	ImportCreate:                    {create: true},
	ImportUpdate:                    {update: true},
	ImportUpdateIfMatchETag:         {update: true, match: true},
	ImportCreateOrUpdateIfMatchETag: {create: true, update: true, match: true},
	ImportDelete:                    {remove: true},
	ImportDeleteIfMatchETag:         {remove: true, match: true},
	ImportUpdateTwin:                {twin: true},
	ImportUpdateTwinIfMatchETag:     {twin: true, match: true},
}

// ParseImportMode finds a mode whatever its case: SDKs differ in it.
func ParseImportMode(s string) (ImportMode, bool) {
	if s == "" {
		return ImportCreateOrUpdate, true
	}
	for mode := range importRules {
		if strings.EqualFold(string(mode), s) {
			return mode, true
		}
	}
	return "", false
}

// A BulkEntry is one change of a bulk operation.
type BulkEntry struct {
	ID       ID
	Mode     ImportMode
	ETag     string // of the identity, for the modes that compare it; empty or "*" is any
	TwinETag string // of the twin, likewise
	Spec     IdentitySpec
	Twin     TwinChange
	Reported json.RawMessage // counts when the identity is created
}

// A BulkError says why one entry of a bulk operation was not applied.
type BulkError struct {
	ID  ID
	Err error // what the operation on this identity alone would have returned
}

// Limits of a bulk operation. Entries of different devices are applied side by
// side, so that they share the wait for the disk.
const (
	MaxBulk         = 100
	bulkConcurrency = 25
)

// Bulk applies up to 100 entries, each on its own, and returns why some were
// not applied, in the order of the entries. Entries of the same device are
// applied in their order.
//
// Errors, with nothing applied: ErrArgumentInvalid,
// ErrDeviceDefinedMultipleTimes (an identity occurs twice).
func (s *Server) Bulk(entries []BulkEntry) ([]BulkError, error) {
	if len(entries) == 0 || len(entries) > MaxBulk {
		return nil, ErrArgumentInvalid.With("a bulk operation takes 1 to %d entries, not %d", MaxBulk, len(entries))
	}
	seen := make(map[ID]bool, len(entries))
	byDevice := make(map[string][]int)
	for n, e := range entries {
		if seen[e.ID] {
			return nil, ErrDeviceDefinedMultipleTimes.With("DeviceDefinedMultipleTimes, device ID %s", words.Clip(e.ID.String()))
		}
		seen[e.ID] = true
		byDevice[e.ID.Device] = append(byDevice[e.ID.Device], n)
	}
	failed := make([]error, len(entries))
	turns := make(chan struct{}, bulkConcurrency)
	var wg sync.WaitGroup
	for _, indexes := range byDevice {
		turns <- struct{}{}
		wg.Go(func() {
			for _, n := range indexes {
				failed[n] = s.applyEntry(entries[n])
			}
			<-turns
		})
	}
	wg.Wait()
	var list []BulkError
	for n, err := range failed {
		if err != nil {
			list = append(list, BulkError{ID: entries[n].ID, Err: err})
		}
	}
	return list, nil
}

func (s *Server) applyEntry(e BulkEntry) error {
	rule, ok := importRules[cmp.Or(e.Mode, ImportCreateOrUpdate)]
	if !ok {
		return ErrArgumentInvalid.With("importMode '%s' is unknown", words.Clip(string(e.Mode)))
	}
	if rule.twin {
		var m Match
		if rule.match {
			m = etagMatch(e.TwinETag)
		}
		return s.Update(e.ID.Device, func(tx *Tx) error { return tx.PatchTwin(e.ID, e.Twin, m) })
	}
	if err := e.Spec.validateFor(e.ID); err != nil {
		return err
	}
	return s.Update(e.ID.Device, func(tx *Tx) error {
		_, err := tx.Identity(e.ID)
		found := err == nil
		switch {
		case err != nil && !errors.Is(err, e.ID.notFound()):
			return err
		case found && !rule.update && !rule.remove:
			_, err := tx.Create(e.ID, e.Spec, nil)
			return err // it exists
		case !found && rule.create:
			return tx.createEntry(e)
		case !found:
			return err
		}
		m := Match{Any: true}
		if rule.match {
			m = etagMatch(e.ETag)
		}
		if rule.remove {
			return tx.Delete(e.ID, m)
		}
		return tx.updateEntry(e, m)
	})
}

// etagMatch is the condition of an etag as a bulk entry gives it.
func etagMatch(etag string) Match {
	if etag == "" || etag == "*" {
		return Match{Any: true}
	}
	return Match{ETag: etag}
}

func (tx *Tx) updateEntry(e BulkEntry, m Match) error {
	if _, err := tx.Update(e.ID, e.Spec, m); err != nil {
		return err
	}
	if e.Twin.Empty() {
		return nil
	}
	return tx.PatchTwin(e.ID, e.Twin, Match{})
}

// createEntry creates the identity with what the entry says of its twin, so
// that what was exported can be imported.
//
// The event of the creation shows the twin with it: its body is documented to
// be the twin, and that tags of an import are in it is assumed.
//
// Scopes are not checked: the tests of the C# SDK create devices in bulk whose
// scope is no device's, and by a PUT are refused the same.
func (tx *Tx) createEntry(e BulkEntry) error {
	e.Spec.anyScope = true
	t, err := tx.NewTwin(e.ID, e.Twin, e.Reported)
	if err != nil {
		return err
	}
	_, err = tx.register(e.ID, e.Spec, t)
	return err
}
