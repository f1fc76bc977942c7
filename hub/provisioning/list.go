package provisioning

import (
	"errors"
	"regexp"
	"strings"

	"github.com/iotdm/iotdm/hub/internal/disk"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/hub/store"
)

// maxList is how many rows one list has at most.
const maxList = 1000

// A query may have more around it, since the extension of the Azure CLI sends a text
// that has it inside; but nothing that asks for less than all.
var (
	selectAll = regexp.MustCompile(`(?i)^\s*\*\s*$|\bselect\s+\*(?:\s+from\s+([a-z]+))?`)
	narrower  = regexp.MustCompile(`(?i)\b(?:where|top|limit|group|order)\b`)
)

// checkQuery refuses all but the one query that there is.
//
// Errors: ErrBadRequest.
func checkQuery(k Kind, query string) error {
	from := "enrollments"
	if k == Group {
		from = "enrollmentGroups"
	}
	found := selectAll.FindStringSubmatch(query)
	if found == nil || found[1] != "" && !strings.EqualFold(found[1], from) || narrower.MatchString(query) {
		return ErrBadRequest.With("the query must be SELECT * FROM %s, not %q", from, words.Clip(query))
	}
	return nil
}

// Enrollments returns up to limit enrollments in the order of their ids, the first
// behind after, without keys, and what to ask for the next ones behind; "" is the end.
// The query is "SELECT * FROM enrollments" or "... enrollmentGroups", as the kind is.
//
// Errors: ErrBadRequest.
func (s *Service) Enrollments(k Kind, query, after string, limit int) (list []Enrollment, next string, err error) {
	if err := checkQuery(k, query); err != nil {
		return nil, "", err
	}
	list = []Enrollment{}
	next, err = s.page(string(k.key("")), after, limit, func(id string, v []byte) error {
		e, err := readEnrollment(k, id, func([]byte) ([]byte, error) { return v, nil })
		if err == nil {
			e, err = s.shown(e)
		}
		list = append(list, e)
		return err
	})
	return list, next, err
}

// Registrations returns up to limit registrations of a group, as Enrollments does.
// Those of a group that was deleted are there until they are deleted, too.
//
// Errors: ErrNotFound (the group).
func (s *Service) Registrations(group, after string, limit int) (list []Registration, next string, err error) {
	list = []Registration{}
	prefix := string(disk.Below(disk.Registered, strings.ToLower(group)))
	next, err = s.page(prefix, after, limit, func(id string, _ []byte) error {
		r, err := readRecord(id, s.store.Get)
		if err == nil {
			list = append(list, r.as(s.hub.Now()))
		}
		if errors.Is(err, ErrRegistrationNotFound) { // it was deleted a moment ago
			return nil
		}
		return err
	})
	if err == nil && len(list) == 0 && after == "" {
		_, err = readEnrollment(Group, group, s.store.Get)
	}
	return list, next, err
}

// page calls fn with up to limit of the records whose keys begin with prefix, the
// first behind after, and returns the last id if there are more.
func (s *Service) page(prefix, after string, limit int, fn func(id string, value []byte) error) (next string, err error) {
	if limit < 1 || limit > maxList {
		limit = maxList
	}
	start := []byte(prefix)
	if after != "" {
		start = append([]byte(prefix+strings.ToLower(after)), 0)
	}
	last, n := "", 0
	err = s.store.Scan(start, store.PrefixEnd([]byte(prefix)), func(k, v []byte) error {
		if n == limit {
			next = last
			return store.ErrStop
		}
		n++
		last = strings.TrimPrefix(string(k), prefix)
		return fn(last, v)
	})
	return next, err
}
