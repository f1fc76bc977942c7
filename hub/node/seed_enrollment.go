package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/provisioning"
)

// A seedEnrollment is an individual enrollment or a group as the REST API of the
// provisioning service has it.
type seedEnrollment provisioning.Enrollment

// UnmarshalYAML reads what the same text in JSON means, and refuses members that there
// are none of.
func (e *seedEnrollment) UnmarshalYAML(node *yaml.Node) error {
	var members seedProperties
	if err := node.Decode(&members); err != nil {
		return err
	}
	text, err := json.Marshal(members)
	if err != nil {
		return fmt.Errorf("line %d: %w", node.Line, err)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	err = d.Decode((*provisioning.Enrollment)(e))
	var wrongType *json.UnmarshalTypeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &wrongType):
		path := strings.Split(wrongType.Field, ".")
		return fmt.Errorf("line %d: %s must not be of type %s", lineOf(node, path[len(path)-1]), wrongType.Field, wrongType.Value)
	}
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return fmt.Errorf("line %d: field %s not found", lineOf(node, strings.Trim(name, `"`)), strings.Trim(name, `"`))
	}
	return fmt.Errorf("line %d: %s", node.Line, strings.TrimPrefix(err.Error(), "json: "))
}

// lineOf returns the line of the first member of the name, or of the node without one.
func lineOf(node *yaml.Node, name string) int {
	if member := findMember(node, name); member != nil {
		return member.Line
	}
	return node.Line
}

func findMember(node *yaml.Node, name string) *yaml.Node {
	for i, n := range node.Content {
		if node.Kind == yaml.MappingNode && i%2 == 0 && n.Value == name {
			return n
		}
		if found := findMember(n, name); found != nil {
			return found
		}
	}
	return nil
}

// enrollments are all of the seed, with where they are.
func (s Seed) enrollments() func(func(provisioning.Enrollment, []any) bool) {
	return func(yield func(provisioning.Enrollment, []any) bool) {
		for i, e := range s.content.Enrollments {
			if !yield(provisioning.Enrollment(e), []any{"enrollments", i}) {
				return
			}
		}
		for i, e := range s.content.EnrollmentGroups {
			if !yield(provisioning.Enrollment(e), []any{"enrollmentGroups", i}) {
				return
			}
		}
	}
}

// checkEnrollments finds what is wrong with them whatever a hub has.
func (s Seed) checkEnrollments() error {
	var listed []string
	for e, path := range s.enrollments() {
		what, member := "enrollment", "registrationId"
		id, other := e.RegistrationID, e.GroupID
		if path[0] == "enrollmentGroups" {
			what, member = "enrollment group", "enrollmentGroupId"
			id, other = other, id
		}
		switch {
		case id == "" || other != "":
			return s.wrong(fmt.Errorf("an %s needs its id, as %s, and no other", what, member), path...)
		case slices.Contains(listed, what+strings.ToLower(id)):
			return s.wrong(fmt.Errorf("%s %q is listed twice", what, id), path...)
		}
		listed = append(listed, what+strings.ToLower(id))
		if keys := e.Attestation.SymmetricKey; keys != nil {
			if field, err := badKey(keys.Primary, keys.Secondary); err != nil {
				return s.wrong(fmt.Errorf("%s %q: %s: %w", what, id, field, err), append(path, "attestation", "symmetricKey", field)...)
			}
		}
	}
	return nil
}

// webhookHosts are those of the seed's custom allocations. Whether the hub may ask them
// shows when it gets the seed.
func (s Seed) webhookHosts() []string {
	var hosts []string
	for e := range s.enrollments() {
		if e.Custom == nil {
			continue
		}
		if u, err := url.Parse(e.Custom.URL); err == nil && u.Hostname() != "" {
			hosts = append(hosts, u.Hostname())
		}
	}
	return hosts
}

// applyEnrollments creates the enrollments that the service does not have.
func (s Seed) applyEnrollments(service *provisioning.Service) error {
	for e, path := range s.enrollments() {
		if _, err := service.PutEnrollment(e, hub.Match{}); err != nil && !errors.Is(err, provisioning.ErrAlreadyExists) {
			what := "enrollment"
			if e.Kind() == provisioning.Group {
				what = "enrollment group"
			}
			return s.wrong(fmt.Errorf("%s %q: %w", what, e.ID(), err), path...)
		}
	}
	return nil
}
