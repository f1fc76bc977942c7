package provisioning

import (
	"strings"
	"sync"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/words"
)

// A BulkMode says what a bulk operation does.
type BulkMode string

// The modes.
const (
	BulkCreate      BulkMode = "create"
	BulkUpdate      BulkMode = "update"
	BulkUpdateMatch BulkMode = "updateIfMatchETag"
	BulkDelete      BulkMode = "delete"
)

// A BulkResult is what became of a bulk operation, in the service's form.
type BulkResult struct {
	IsSuccessful bool        `json:"isSuccessful"`
	Errors       []BulkError `json:"errors"`
}

// A BulkError is why one enrollment was not changed.
type BulkError struct {
	RegistrationID string `json:"registrationId,omitempty"`
	GroupID        string `json:"enrollmentGroupId,omitempty"`
	Code           int    `json:"errorCode"`
	Status         string `json:"errorStatus"`
}

// Limits of a bulk operation, assumed to be those of the registry's. Enrollments are
// changed side by side, so that they share the wait for the disk.
const (
	MaxBulk         = 100
	bulkConcurrency = 25
)

// Bulk does the same to 1 to MaxBulk enrollments, each by itself.
//
// Errors: ErrBadRequest, for the whole of it.
func (s *Service) Bulk(k Kind, mode BulkMode, list []Enrollment) (BulkResult, error) {
	mode, err := oneOf("mode", mode, "", BulkCreate, BulkUpdate, BulkUpdateMatch, BulkDelete)
	switch {
	case err != nil:
		return BulkResult{}, err
	case mode == "":
		return BulkResult{}, ErrBadRequest.With("mode must be create, update, updateIfMatchETag or delete")
	case len(list) == 0 || len(list) > MaxBulk:
		return BulkResult{}, ErrBadRequest.With("a bulk operation takes 1 to %d enrollments, not %d", MaxBulk, len(list))
	}
	seen := make(map[string]bool, len(list))
	for _, e := range list {
		id := strings.ToLower(e.ID())
		if e.Kind() != k || id == "" {
			return BulkResult{}, ErrBadRequest.With("each needs the id of an %s", k)
		}
		if seen[id] {
			return BulkResult{}, ErrBadRequest.With("%s %q occurs twice", k, words.Clip(id))
		}
		seen[id] = true
	}
	failed := make([]error, len(list))
	room := make(chan struct{}, bulkConcurrency)
	var wg sync.WaitGroup
	for n, e := range list {
		room <- struct{}{}
		wg.Go(func() {
			failed[n] = s.apply(mode, e)
			<-room
		})
	}
	wg.Wait()
	result := BulkResult{IsSuccessful: true, Errors: []BulkError{}}
	for n, err := range failed {
		if err != nil {
			why := RefusalOf(err)
			result.IsSuccessful = false
			result.Errors = append(result.Errors, BulkError{list[n].RegistrationID, list[n].GroupID, why.Code, why.Text})
		}
	}
	return result, nil
}

func (s *Service) apply(mode BulkMode, e Enrollment) (err error) {
	switch mode {
	case BulkCreate:
		_, err = s.PutEnrollment(e, hub.Match{})
	case BulkUpdate:
		_, err = s.PutEnrollment(e, hub.Match{Any: true})
	case BulkUpdateMatch:
		_, err = s.PutEnrollment(e, hub.Match{Any: e.ETag == "", ETag: e.ETag})
	case BulkDelete:
		err = s.DeleteEnrollment(e.Kind(), e.ID(), hub.Match{Any: true})
	}
	return err
}
