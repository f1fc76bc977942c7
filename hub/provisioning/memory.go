package provisioning

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/iotdm/iotdm/hub/internal/disk"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/hub/store"
)

// What the service has in memory follows what is stored, whichever node changes
// that: the groups, and how many other enrollments there are.

// kept returns what takes over a change of the records with a prefix, or one that
// is there.
func (s *Service) kept() map[string]func(store.Change) error {
	return map[string]func(store.Change) error{disk.EnrollmentGroup: s.takeGroup, disk.Enrollment: s.takeIndividual}
}

// follow takes over what is stored, and from then on what changes.
func (s *Service) follow() error {
	for prefix, take := range s.kept() {
		if err := s.hub.Subscribe(prefix, take); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) takeGroup(c store.Change) error {
	if c.Value == nil {
		s.groups.remove(string(c.Key[len(disk.EnrollmentGroup):]))
		return nil
	}
	e, err := readEnrollment(Group, "", func([]byte) ([]byte, error) { return c.Value, nil })
	if err != nil {
		return err
	}
	g, err := newGroup(e)
	if err != nil {
		s.log.Warn("a certificate of an enrollment group cannot be read", words.LogEnrollment, e.ID(), words.LogReason, err)
	}
	s.groups.put(g)
	if c.Mine {
		s.tellShared(g)
	}
	return nil
}

func (s *Service) takeIndividual(c store.Change) error {
	switch {
	case c.Value == nil:
		s.individuals.Add(-1)
		return nil
	case c.Pos == 0 && !c.Mine: // it was there before
		s.individuals.Add(1)
		return nil
	}
	var e struct {
		Created time.Time `json:"createdDateTimeUtc"`
		Updated time.Time `json:"lastUpdatedDateTimeUtc"`
	}
	if err := json.Unmarshal(c.Value, &e); err != nil {
		return fmt.Errorf("stored %s: %w", Individual, err)
	}
	if e.Created.Equal(e.Updated) { // it is new
		s.individuals.Add(1)
	}
	return nil
}
