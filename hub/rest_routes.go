package hub

import (
	"net/http"
	"slices"
	"strings"
)

// A route is one operation of the service's REST API.
type route struct {
	method string
	path   string // fixed words, and {device}, {module} and {name}
	rights anyOf  // what a shared access policy needs
	action string // the Entra ID permissions, without Microsoft.Devices/IotHubs/, separated by blanks
	handle func(*Server, *restRequest) (reply, error)
	nested bool // errors are in the envelope of direct methods
}

// anyOf lists combinations of rights of which a policy needs one in full.
type anyOf [][]Right

var (
	mayRead  = anyOf{{RegistryRead}}
	mayWrite = anyOf{{RegistryWrite}}
	mayServe = anyOf{{ServiceConnect}}

	mayReadWrite    = anyOf{{RegistryRead, RegistryWrite}}
	mayReadOrServe  = anyOf{{RegistryRead}, {ServiceConnect}}
	mayWriteOrServe = anyOf{{RegistryWrite}, {ServiceConnect}}
)

// routes are all operations. Where two paths fit a request the first one is
// taken, so that fixed words go before names.
//
// The rights are those of "Control access to IoT Hub with shared access
// signatures", the actions those of "Control access to IoT Hub by using
// Microsoft Entra ID".
var routes = []route{
	{"GET", "devices", mayRead, "devices/read", (*Server).restListDevices, false},
	{"POST", "devices", mayWrite, "devices/write devices/delete", (*Server).restBulk, false},
	{"POST", "devices/query", mayReadOrServe, "twins/read", restUnavailable("queries are"), false},
	{"POST", "devices/keys/regenerate", mayWrite, "devices/write", (*Server).restRegenerateKeys, false},
	{"GET", "devices/{device}", mayRead, "devices/read", (*Server).restGetDevice, false},
	{"PUT", "devices/{device}", mayWrite, "devices/write", (*Server).restPutDevice, false},
	{"DELETE", "devices/{device}", mayWrite, "devices/delete", (*Server).restDeleteIdentity, false},
	{"POST", "devices/{device}/applyConfigurationContent", mayWriteOrServe, "configurations/applyToEdgeDevice/action", restUnavailable("configurations are"), false},

	{"GET", "devices/{device}/modules", mayRead, "devices/read", (*Server).restListModules, false},
	{"GET", "devices/{device}/modules/{module}", mayRead, "devices/read", (*Server).restGetModule, false},
	{"PUT", "devices/{device}/modules/{module}", mayWrite, "devices/write", (*Server).restPutModule, false},
	{"DELETE", "devices/{device}/modules/{module}", mayWrite, "devices/delete", (*Server).restDeleteIdentity, false},

	{"GET", "statistics/devices", mayRead, "statistics/read", (*Server).restDeviceStatistics, false},
	{"GET", "statistics/service", mayServe, "statistics/read", (*Server).restServiceStatistics, false},

	{"GET", "twins/{device}", mayServe, "twins/read", (*Server).restGetTwin, false},
	{"PATCH", "twins/{device}", mayServe, "twins/write", (*Server).restPatchTwin, false},
	{"PUT", "twins/{device}", mayServe, "twins/write", (*Server).restReplaceTwin, false},
	{"GET", "twins/{device}/modules/{module}", mayServe, "twins/read", (*Server).restGetTwin, false},
	{"PATCH", "twins/{device}/modules/{module}", mayServe, "twins/write", (*Server).restPatchTwin, false},
	{"PUT", "twins/{device}/modules/{module}", mayServe, "twins/write", (*Server).restReplaceTwin, false},

	{"POST", "twins/{device}/methods", mayServe, "directMethods/invoke/action", (*Server).restInvokeMethod, true},
	{"POST", "twins/{device}/modules/{module}/methods", mayServe, "directMethods/invoke/action", (*Server).restInvokeMethod, true},

	{"GET", "digitaltwins/{device}", mayServe, "twins/read", restUnavailable("digital twins are"), false},
	{"PATCH", "digitaltwins/{device}", mayServe, "twins/write", restUnavailable("digital twins are"), false},
	{"POST", "digitaltwins/{device}/commands/{name}", mayServe, "directMethods/invoke/action", restUnavailable("digital twins are"), true},
	{"POST", "digitaltwins/{device}/components/{name}/commands/{name}", mayServe, "directMethods/invoke/action", restUnavailable("digital twins are"), true},

	{"POST", "jobs/create", mayReadWrite, "jobs/write", (*Server).restCreateImportJob, false},
	{"GET", "jobs", mayReadWrite, "jobs/read", (*Server).restListImportJobs, false},
	{"GET", "jobs/{name}", mayReadWrite, "jobs/read", (*Server).restGetImportJob, false},
	{"DELETE", "jobs/{name}", mayReadWrite, "jobs/delete", (*Server).restGetImportJob, false},

	{"GET", "jobs/v2/query", mayServe, "jobs/read", restUnavailable("scheduled jobs are"), false},
	{"GET", "jobs/v2/{name}", mayServe, "jobs/read", restUnavailable("scheduled jobs are"), false},
	{"PUT", "jobs/v2/{name}", mayServe, "jobs/write", restUnavailable("scheduled jobs are"), false},
	{"POST", "jobs/v2/{name}/cancel", mayServe, "jobs/delete", restUnavailable("scheduled jobs are"), false},

	{"POST", "configurations/testQueries", mayReadOrServe, "configurations/testQueries/action", restUnavailable("configurations are"), false},
	{"GET", "configurations", mayReadOrServe, "configurations/read", restUnavailable("configurations are"), false},
	{"GET", "configurations/{name}", mayReadOrServe, "configurations/read", restUnavailable("configurations are"), false},
	{"PUT", "configurations/{name}", mayWriteOrServe, "configurations/write", restUnavailable("configurations are"), false},
	{"DELETE", "configurations/{name}", mayWriteOrServe, "configurations/delete", restUnavailable("configurations are"), false},
}

// A routeMatch is what the route table says of a method and a path.
type routeMatch struct {
	route *route // nil if there is none
	known bool   // the path fits, perhaps with another method
	id    ID
	name  string

	// allowed are the routes the caller must have the right to before it
	// learns anything: the one route, or all of the path when the method is
	// not among them, or all there are when the path is unknown.
	allowed []*route
}

func match(method string, segments []string) routeMatch {
	var m routeMatch
	for i := range routes {
		r := &routes[i]
		id, name, ok := r.match(segments)
		if !ok {
			continue
		}
		if r.method == method {
			return routeMatch{route: r, known: true, id: id, name: name, allowed: []*route{r}}
		}
		m.known = true
		m.allowed = append(m.allowed, r)
	}
	if !m.known {
		for i := range routes {
			m.allowed = append(m.allowed, &routes[i])
		}
	}
	return m
}

// match compares a path with the route's, fixed words without regard to case.
func (r *route) match(segments []string) (id ID, name string, ok bool) {
	rest, more := r.path, true
	for _, segment := range segments {
		if !more {
			return ID{}, "", false
		}
		var word string
		word, rest, more = strings.Cut(rest, "/")
		if segment == "" {
			return ID{}, "", false
		}
		switch word {
		case "{device}":
			id.Device = segment
		case "{module}":
			id.Module = segment
		case "{name}":
			name = segment
		default:
			if !strings.EqualFold(word, segment) {
				return ID{}, "", false
			}
		}
	}
	return id, name, !more && len(segments) > 0
}

// A caller is who a request's credential proved to be.
type caller struct {
	name   string // for the hub's log
	rights []Right
}

// authenticateCaller checks the credential of a request for the decoded path.
func (s *Server) authenticateCaller(r *http.Request, path string) (caller, error) {
	header := r.Header["Authorization"]
	if len(header) != 1 {
		return caller{}, ErrUnauthorizedAccess.with("there is no Authorization header, or more than one")
	}
	p, err := s.authorize(header[0], r.Host, path, RegistryRead, RegistryWrite, ServiceConnect)
	if err != nil {
		return caller{}, err
	}
	return caller{name: p.Name, rights: p.Rights}, nil
}

// may returns why the caller must not use the route, if so.
func (c caller) may(to *route, _ *http.Request) error {
	for _, all := range to.rights {
		if c.hasAll(all) {
			return nil
		}
	}
	return ErrUnauthorizedAccess.with("policy %s does not allow %s /%s", c.name, to.method, to.path)
}

func (c caller) hasAll(rights []Right) bool {
	for _, want := range rights {
		if !slices.Contains(c.rights, want) {
			return false
		}
	}
	return true
}
