package provisioning

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/iotdm/iotdm/hub/internal/disk"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/hub/store"
)

// A record is a registration as it is stored.
type record struct {
	Shown     Registration `json:"shown"` // as it is once nothing is assigning any more
	Source    source       `json:"source"`
	Place     place        `json:"place,omitzero"` // zero if it has never been assigned
	Left      []place      `json:"left,omitempty"` // where the device was, and could not be removed yet
	Operation string       `json:"operation"`      // the last one
	Ready     time.Time    `json:"ready,omitzero"` // until then it is assigning
}

// A source is the enrollment by which a device has registered. One that was deleted
// and made again is another.
type source struct {
	Kind Kind   `json:"kind"`
	ID   string `json:"id"`
	Born int64  `json:"born"` // when it was created, in Unix nanoseconds
}

func (e *Enrollment) source() source { return source{e.Kind(), e.ID(), e.Created.UnixNano()} }

// A place is an identity in the registry of a hub.
type place struct {
	Hub    string `json:"hub,omitempty"` // empty is this hub, else the name of one that is linked
	Device string `json:"device"`
}

func (p place) String() string {
	if p.Hub == "" {
		return p.Device
	}
	return p.Device + " in " + p.Hub
}

// as returns the registration as it shows at a time.
func (r *record) as(now time.Time) Registration {
	if now.Before(r.Ready) {
		return Registration{
			RegistrationID: r.Shown.RegistrationID, Created: r.Shown.Created, Updated: r.Shown.Updated, ETag: r.Shown.ETag,
			Status: Assigning, X509: r.Shown.X509, SymmetricKey: r.Shown.SymmetricKey,
		}
	}
	return r.Shown
}

// idPattern is that of registration ids, and of the ids of groups.
var idPattern = regexp.MustCompile(`^[A-Za-z0-9\-._:]{0,127}[A-Za-z0-9\-]$`)

func key(prefix, id string) []byte { return []byte(prefix + strings.ToLower(id)) }

func (k Kind) key(id string) []byte {
	if k == Group {
		return key(disk.EnrollmentGroup, id)
	}
	return key(disk.Enrollment, id)
}

// lock returns what the updates of an enrollment wait for: those of groups for each
// other, since they are counted.
func (k Kind) lock(id string) string {
	if k == Group {
		return disk.EnrollmentGroup
	}
	return string(k.key(id))
}

func registrationKey(id string) []byte { return key(disk.Registration, id) }

// indexKey returns the key of a registration in the index of its group, or nil.
func (r *record) indexKey() []byte {
	if r.Source.Kind != Group {
		return nil
	}
	return disk.Of(disk.Registered, strings.ToLower(r.Source.ID), strings.ToLower(r.Shown.RegistrationID))
}

// put stores the record in place of before.
func (r *record) put(tx *store.Tx, before *record) {
	now, old := r.indexKey(), before.indexKey()
	if string(now) != string(old) {
		if old != nil {
			tx.Delete(old)
		}
		if now != nil {
			tx.Set(now, nil)
		}
	}
	tx.Set(registrationKey(r.Shown.RegistrationID), words.MustMarshal(r))
}

func (r *record) remove(tx *store.Tx) {
	if index := r.indexKey(); index != nil {
		tx.Delete(index)
	}
	tx.Delete(registrationKey(r.Shown.RegistrationID))
}

func decodeRecord(data []byte) (r record, err error) {
	if err := json.Unmarshal(data, &r); err != nil {
		return record{}, fmt.Errorf("stored registration: %w", err)
	}
	return r, nil
}

// readRecord returns a registration.
//
// Errors: ErrRegistrationNotFound.
func readRecord(id string, get func([]byte) ([]byte, error)) (record, error) {
	data, err := get(registrationKey(id))
	switch {
	case errors.Is(err, store.ErrNotFound):
		return record{}, ErrRegistrationNotFound.With("there is no registration %q", words.Clip(id))
	case err != nil:
		return record{}, err
	}
	return decodeRecord(data)
}

// readEnrollment returns an enrollment as it is stored.
//
// Errors: ErrNotFound.
func readEnrollment(k Kind, id string, get func([]byte) ([]byte, error)) (e Enrollment, err error) {
	data, err := get(k.key(id))
	switch {
	case errors.Is(err, store.ErrNotFound):
		return e, ErrNotFound.With("there is no %s %q", k, words.Clip(id))
	case err != nil:
		return e, err
	}
	if err := json.Unmarshal(data, &e); err != nil {
		return Enrollment{}, fmt.Errorf("stored %s: %w", k, err)
	}
	return e, nil
}

// String names the kind, for errors and the log.
func (k Kind) String() string {
	if k == Group {
		return "enrollment group"
	}
	return "enrollment"
}

// newETag returns an etag as those of enrollments are, with quotes.
func newETag() string {
	id := words.NewRequestID().Compact()
	return `"` + id[:8] + "-0000-0300-0000-" + id[8:20] + `"`
}

// registrationETag returns one as those of registrations are: the base64 form of
// the others, as the service's documents show it.
func registrationETag() string { return base64.StdEncoding.EncodeToString([]byte(newETag())) }

// newOperation returns the id of an operation, in the service's form.
func newOperation() string {
	return "4." + words.NewRequestID().Compact()[:16] + "." + words.NewRequestID().String()
}

// instant is a time as the service's clients read it: of 100 ns.
func instant(t time.Time) time.Time { return t.UTC().Truncate(100) }
