package dps

import (
	"slices"
	"strings"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/provisioning"
)

// A route is one operation of the provisioning service.
type route struct {
	method string
	path   string // fixed words, and {id} and {operation}
	need   hub.Permission
	handle func(*Door, *request) (reply, error)
	kind   provisioning.Kind // of what it is about
}

// permission makes one of a right and of actions of the provisioning service.
func permission(right hub.Right, actions ...string) hub.Permission {
	for i := range actions {
		actions[i] = hub.ProvisioningActions + actions[i]
	}
	return hub.Permission{Rights: hub.AnyOf{{right}}, Action: strings.Join(actions, " ")}
}

// Rights are those of "How to control access to the provisioning service", actions
// those of "Control access to the Device Provisioning Service by using Microsoft Entra
// ID". That the keys of an attestation mechanism want no more of a policy than reading
// is assumed: the hub's RegistryRead shows keys, too.
var (
	readEnrollments  = permission(hub.EnrollmentRead, "enrollments/read")
	writeEnrollments = permission(hub.EnrollmentWrite, "enrollments/write")
	dropEnrollments  = permission(hub.EnrollmentWrite, "enrollments/delete")
	bulkEnrollments  = permission(hub.EnrollmentWrite, "enrollments/write", "enrollments/delete")

	readGroups  = permission(hub.EnrollmentRead, "enrollmentGroups/read")
	writeGroups = permission(hub.EnrollmentWrite, "enrollmentGroups/write")
	dropGroups  = permission(hub.EnrollmentWrite, "enrollmentGroups/delete")
	bulkGroups  = permission(hub.EnrollmentWrite, "enrollmentGroups/write", "enrollmentGroups/delete")

	readKeys = permission(hub.EnrollmentRead, "attestationmechanism/details/action")

	readRegistrations = permission(hub.RegistrationStatusRead, "registrationStates/read")
	dropRegistrations = permission(hub.RegistrationStatusWrite, "registrationStates/delete")
)

// routes are the operations of services. Where two paths fit a request the first one is
// taken, so that fixed words go before ids.
var routes = []route{
	{"POST", "enrollments", bulkEnrollments, (*Door).bulk, provisioning.Individual},
	{"POST", "enrollments/query", readEnrollments, (*Door).queryEnrollments, provisioning.Individual},
	{"POST", "enrollments/{id}/attestationmechanism", readKeys, (*Door).attestationMechanism, provisioning.Individual},
	{"GET", "enrollments/{id}", readEnrollments, (*Door).getEnrollment, provisioning.Individual},
	{"PUT", "enrollments/{id}", writeEnrollments, (*Door).putEnrollment, provisioning.Individual},
	{"DELETE", "enrollments/{id}", dropEnrollments, (*Door).deleteEnrollment, provisioning.Individual},

	{"POST", "enrollmentGroups", bulkGroups, (*Door).bulk, provisioning.Group},
	{"POST", "enrollmentGroups/query", readGroups, (*Door).queryEnrollments, provisioning.Group},
	{"POST", "enrollmentGroups/{id}/attestationmechanism", readKeys, (*Door).attestationMechanism, provisioning.Group},
	{"GET", "enrollmentGroups/{id}", readGroups, (*Door).getEnrollment, provisioning.Group},
	{"PUT", "enrollmentGroups/{id}", writeGroups, (*Door).putEnrollment, provisioning.Group},
	{"DELETE", "enrollmentGroups/{id}", dropGroups, (*Door).deleteEnrollment, provisioning.Group},

	{"GET", "registrations/{id}", readRegistrations, (*Door).getRegistration, 0},
	{"DELETE", "registrations/{id}", dropRegistrations, (*Door).deleteRegistration, 0},
	{"POST", "registrations/{id}/query", readRegistrations, (*Door).queryRegistrations, 0},
}

// deviceRoutes are the operations of devices, behind the id scope and "registrations".
// They need what the enrollment of {id} says.
var deviceRoutes = []route{
	{"PUT", "{id}/register", hub.Permission{}, (*Door).register, 0},
	{"GET", "{id}/operations/{operation}", hub.Permission{}, (*Door).operation, 0},
	{"POST", "{id}", hub.Permission{}, (*Door).lookUp, 0},
}

// ofHub begin paths of the hub's own API, which may go on with a device of the name
// "registrations".
var ofHub = []string{"devices", "twins", "digitaltwins", "jobs", "configurations", "messages", "statistics", "iotdm"}

// belongs reports whether a path is one of the provisioning service.
func belongs(segments []string) bool {
	if len(segments) == 0 {
		return false
	}
	switch first := strings.ToLower(segments[0]); first {
	case "enrollments", "enrollmentgroups", "registrations":
		return true
	default:
		return len(segments) > 2 && strings.EqualFold(segments[1], "registrations") && !slices.Contains(ofHub, first)
	}
}

// A routeMatch is what the route tables say of a method and a path.
type routeMatch struct {
	route *route // nil if there is none
	known bool   // the path fits, perhaps with another method

	id        string // {id} of the path
	operation string // {operation}

	// scope and registration are what a device's path says; empty for a service.
	scope, registration string

	// allowed are the routes that a service must have the right to before it learns
	// anything: the one route, or all of the path when the method is not among them, or
	// all there are when the path is unknown.
	allowed []*route
}

func match(method string, segments []string) routeMatch {
	var m routeMatch
	table := routes
	if len(segments) > 2 && strings.EqualFold(segments[1], "registrations") && !slices.Contains([]string{"enrollments", "enrollmentgroups", "registrations"}, strings.ToLower(segments[0])) {
		m.scope, m.registration = segments[0], segments[2]
		table, segments = deviceRoutes, segments[2:]
	}
	for i := range table {
		r := &table[i]
		id, operation, ok := r.match(segments)
		if !ok {
			continue
		}
		m.known, m.id, m.operation = true, id, operation
		if r.method == method {
			m.route, m.allowed = r, []*route{r}
			return m
		}
		m.allowed = append(m.allowed, r)
	}
	if len(m.allowed) == 0 {
		for i := range table {
			m.allowed = append(m.allowed, &table[i])
		}
	}
	return m
}

// match compares a path with the route's, fixed words without regard to case.
func (r *route) match(segments []string) (id, operation string, ok bool) {
	words := strings.Split(r.path, "/")
	if len(words) != len(segments) {
		return "", "", false
	}
	for i, word := range words {
		switch {
		case segments[i] == "":
			return "", "", false
		case word == "{id}":
			id = segments[i]
		case word == "{operation}":
			operation = segments[i]
		case !strings.EqualFold(word, segments[i]):
			return "", "", false
		}
	}
	return id, operation, true
}
