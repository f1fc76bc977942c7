package rest

import (
	"net/http"
	"strings"

	"github.com/iotdm/iotdm/hub"
)

// A route is one operation of the service's REST API.
type route struct {
	method string
	path   string // fixed words, and {device}, {module} and {name}
	need   hub.Permission
	handle func(*Door, *request) (reply, error)
	traits traits
}

// traits are what is special about a route.
type traits uint8

const (
	nested   traits = 1 << iota // errors are in the envelope of direct methods
	byDevice                    // the caller is the device or module of the path, with its own credential
	byOwner                     // the device of the path may call it, too, with its own credential
	control                     // it is a test control: see control.go
	lasting                     // it goes on while the hub is reset
	looks                       // it is no GET and looks at the state all the same
)

func (r *route) is(t traits) bool { return r.traits&t != 0 }

// reads reports whether the route answers with the state: in a cluster, of what
// any node has acknowledged. What changes the state finds out by itself.
func (r *route) reads() bool {
	return r.is(looks) || r.method == http.MethodGet && !r.is(byDevice|control|lasting)
}

var (
	mayRead  = hub.AnyOf{{hub.RegistryRead}}
	mayWrite = hub.AnyOf{{hub.RegistryWrite}}
	mayServe = hub.AnyOf{{hub.ServiceConnect}}

	mayReadWrite    = hub.AnyOf{{hub.RegistryRead, hub.RegistryWrite}}
	mayReadOrServe  = hub.AnyOf{{hub.RegistryRead}, {hub.ServiceConnect}}
	mayWriteOrServe = hub.AnyOf{{hub.RegistryWrite}, {hub.ServiceConnect}}

	// The articles "Schedule and broadcast jobs" say that it takes reading and
	// writing the registry; that the policy "service" may too is assumed.
	maySchedule = hub.AnyOf{{hub.RegistryRead, hub.RegistryWrite}, {hub.ServiceConnect}}
)

// routes are all operations. Where two paths fit a request the first one is
// taken, so that fixed words go before names.
//
// The rights are those of "Control access to IoT Hub with shared access
// signatures", the actions those of "Control access to IoT Hub by using
// Microsoft Entra ID". What begins with "iotdm" is this hub's own. For byOwner see
// hub.Server.AuthenticateOwner.
var routes = []route{
	{"GET", "devices", hub.Permission{Rights: mayRead, Action: "devices/read"}, (*Door).listDevices, 0},
	{"POST", "devices", hub.Permission{Rights: mayWrite, Action: "devices/write devices/delete"}, (*Door).bulk, 0},
	{"POST", "devices/query", hub.Permission{Rights: mayReadOrServe, Action: "twins/read"}, (*Door).query, looks},
	{"POST", "devices/keys/regenerate", hub.Permission{Rights: mayWrite, Action: "devices/write"}, (*Door).regenerateKeys, 0},
	{"GET", "devices/{device}", hub.Permission{Rights: mayRead, Action: "devices/read"}, (*Door).getDevice, 0},
	{"PUT", "devices/{device}", hub.Permission{Rights: mayWrite, Action: "devices/write"}, (*Door).putDevice, 0},
	{"DELETE", "devices/{device}", hub.Permission{Rights: mayWrite, Action: "devices/delete"}, (*Door).deleteIdentity, 0},
	{"POST", "devices/{device}/applyConfigurationContent", hub.Permission{Rights: mayWriteOrServe, Action: "configurations/applyToEdgeDevice/action"}, (*Door).applyContent, 0},

	{"GET", "devices/{device}/modules", hub.Permission{Rights: mayRead, Action: "devices/read"}, (*Door).listModules, byOwner},
	{"GET", "devices/{device}/modules/{module}", hub.Permission{Rights: mayRead, Action: "devices/read"}, (*Door).getModule, byOwner},
	{"PUT", "devices/{device}/modules/{module}", hub.Permission{Rights: mayWrite, Action: "devices/write"}, (*Door).putModule, byOwner},
	{"DELETE", "devices/{device}/modules/{module}", hub.Permission{Rights: mayWrite, Action: "devices/delete"}, (*Door).deleteIdentity, byOwner},

	{"POST", "devices/{device}/messages/deviceBound", hub.SendMessages, (*Door).sendMessage, 0},
	{"DELETE", "devices/{device}/commands", hub.Permission{Rights: mayServe, Action: "cloudToDeviceMessages/queue/purge/action"}, (*Door).purgeMessages, 0},
	{"GET", "messages/serviceBound/feedback", hub.ReceiveFeedback, (*Door).receiveFeedback, 0},
	{"DELETE", "messages/serviceBound/feedback/{name}", hub.ReceiveFeedback, (*Door).completeFeedback, 0},
	{"POST", "messages/serviceBound/feedback/{name}/abandon", hub.ReceiveFeedback, (*Door).abandonFeedback, 0},

	{"POST", "devices/{device}/messages/events", hub.Permission{}, (*Door).receiveTelemetry, byDevice},
	{"POST", "devices/{device}/modules/{module}/messages/events", hub.Permission{}, (*Door).receiveTelemetry, byDevice},
	{"GET", "devices/{device}/messages/deviceBound", hub.Permission{}, (*Door).receiveMessage, byDevice},
	{"DELETE", "devices/{device}/messages/deviceBound/{name}", hub.Permission{}, (*Door).settleMessage, byDevice},
	{"POST", "devices/{device}/messages/deviceBound/{name}/abandon", hub.Permission{}, (*Door).abandonMessage, byDevice},
	{"POST", "devices/{device}/files", hub.Permission{}, unavailable("file uploads are"), byDevice},
	{"POST", "devices/{device}/files/notifications", hub.Permission{}, unavailable("file uploads are"), byDevice},
	{"POST", "devices/{device}/files/notifications/{name}", hub.Permission{}, unavailable("file uploads are"), byDevice},

	{"GET", "statistics/devices", hub.Permission{Rights: mayRead, Action: "statistics/read"}, (*Door).deviceStatistics, 0},
	{"GET", "statistics/service", hub.Permission{Rights: mayServe, Action: "statistics/read"}, (*Door).serviceStatistics, 0},

	{"GET", "twins/{device}", hub.Permission{Rights: mayServe, Action: "twins/read"}, (*Door).getTwin, 0},
	{"PATCH", "twins/{device}", hub.Permission{Rights: mayServe, Action: "twins/write"}, (*Door).patchTwin, 0},
	{"PUT", "twins/{device}", hub.Permission{Rights: mayServe, Action: "twins/write"}, (*Door).replaceTwin, 0},
	{"GET", "twins/{device}/modules/{module}", hub.Permission{Rights: mayServe, Action: "twins/read"}, (*Door).getTwin, 0},
	{"PATCH", "twins/{device}/modules/{module}", hub.Permission{Rights: mayServe, Action: "twins/write"}, (*Door).patchTwin, 0},
	{"PUT", "twins/{device}/modules/{module}", hub.Permission{Rights: mayServe, Action: "twins/write"}, (*Door).replaceTwin, 0},

	{"POST", "twins/{device}/methods", hub.Permission{Rights: mayServe, Action: "directMethods/invoke/action"}, (*Door).invokeMethod, nested},
	{"POST", "twins/{device}/modules/{module}/methods", hub.Permission{Rights: mayServe, Action: "directMethods/invoke/action"}, (*Door).invokeMethod, nested},

	{"GET", "digitaltwins/{device}", hub.Permission{Rights: mayServe, Action: "twins/read"}, unavailable("digital twins are"), 0},
	{"PATCH", "digitaltwins/{device}", hub.Permission{Rights: mayServe, Action: "twins/write"}, unavailable("digital twins are"), 0},
	{"POST", "digitaltwins/{device}/commands/{name}", hub.Permission{Rights: mayServe, Action: "directMethods/invoke/action"}, unavailable("digital twins are"), nested},
	{"POST", "digitaltwins/{device}/components/{component}/commands/{name}", hub.Permission{Rights: mayServe, Action: "directMethods/invoke/action"}, unavailable("digital twins are"), nested},

	{"GET", "iotdm/events", hub.ReadEvents, (*Door).events, lasting},

	{"GET", "iotdm/nodes", hub.Permission{Rights: mayReadOrServe, Action: "statistics/read"}, (*Door).listNodes, 0},
	{"GET", "iotdm/traffic", hub.Permission{Rights: mayReadOrServe, Action: "statistics/read"}, (*Door).traffic, 0},
	{"GET", "iotdm/refusals", hub.Permission{Rights: mayReadOrServe, Action: "devices/read"}, (*Door).listRefusals, 0},
	{"GET", "iotdm/devices/{device}/connection", hub.Permission{Rights: mayReadOrServe, Action: "devices/read"}, (*Door).getConnection, 0},
	{"GET", "iotdm/devices/{device}/modules/{module}/connection", hub.Permission{Rights: mayReadOrServe, Action: "devices/read"}, (*Door).getConnection, 0},

	{"GET", "iotdm/certificates", hub.Permission{Rights: mayRead, Action: "certificates/read"}, (*Door).listCAs, 0},
	{"PUT", "iotdm/certificates/{name}", hub.Permission{Rights: mayWrite, Action: "certificates/write"}, (*Door).putCA, 0},
	{"POST", "iotdm/certificates/{name}/verify", hub.Permission{Rights: mayWrite, Action: "certificates/write"}, (*Door).verifyCA, 0},
	{"DELETE", "iotdm/certificates/{name}", hub.Permission{Rights: mayWrite, Action: "certificates/delete"}, (*Door).deleteCA, 0},

	{"POST", "iotdm/control/reset", mayControl, (*Door).resetHub, control},
	{"GET", "iotdm/control/snapshots", mayControl, (*Door).listSnapshots, control},
	{"PUT", "iotdm/control/snapshots/{name}", mayControl, (*Door).saveSnapshot, control},
	{"POST", "iotdm/control/snapshots/{name}/load", mayControl, (*Door).loadSnapshot, control},
	{"DELETE", "iotdm/control/snapshots/{name}", mayControl, (*Door).deleteSnapshot, control},
	{"GET", "iotdm/control/clock", mayControl, (*Door).clock, control},
	{"POST", "iotdm/control/clock", mayControl, (*Door).advanceClock, control},
	{"DELETE", "iotdm/control/clock", mayControl, (*Door).resetClock, control},
	{"GET", "iotdm/control/faults", mayControl, (*Door).listFaults, control},
	{"POST", "iotdm/control/faults", mayControl, (*Door).addFault, control},
	{"DELETE", "iotdm/control/faults", mayControl, (*Door).clearFaults, control},
	{"DELETE", "iotdm/control/faults/{name}", mayControl, (*Door).clearFault, control},
	{"GET", "iotdm/control/journal", mayControl, (*Door).readJournal, control},
	{"DELETE", "iotdm/control/journal", mayControl, (*Door).clearJournal, control},

	{"POST", "jobs/create", hub.Permission{Rights: mayReadWrite, Action: "jobs/write"}, (*Door).createImportJob, 0},
	{"GET", "jobs", hub.Permission{Rights: mayReadWrite, Action: "jobs/read"}, (*Door).listImportJobs, 0},
	{"GET", "jobs/{name}", hub.Permission{Rights: mayReadWrite, Action: "jobs/read"}, (*Door).getImportJob, 0},
	{"DELETE", "jobs/{name}", hub.Permission{Rights: mayReadWrite, Action: "jobs/delete"}, (*Door).getImportJob, 0},

	{"GET", "jobs/v2/query", hub.Permission{Rights: maySchedule, Action: "jobs/read"}, (*Door).listJobs, 0},
	{"GET", "jobs/v2/{name}", hub.Permission{Rights: maySchedule, Action: "jobs/read"}, (*Door).getJob, 0},
	{"PUT", "jobs/v2/{name}", hub.Permission{Rights: maySchedule, Action: "jobs/write"}, (*Door).putJob, 0},
	{"POST", "jobs/v2/{name}/cancel", hub.Permission{Rights: maySchedule, Action: "jobs/delete"}, (*Door).cancelJob, 0},

	{"POST", "configurations/testQueries", hub.Permission{Rights: mayReadOrServe, Action: "configurations/testQueries/action"}, (*Door).testConfiguration, looks},
	{"GET", "configurations", hub.Permission{Rights: mayReadOrServe, Action: "configurations/read"}, (*Door).listConfigurations, 0},
	{"GET", "configurations/{name}", hub.Permission{Rights: mayReadOrServe, Action: "configurations/read"}, (*Door).getConfiguration, 0},
	{"PUT", "configurations/{name}", hub.Permission{Rights: mayWriteOrServe, Action: "configurations/write"}, (*Door).putConfiguration, 0},
	{"DELETE", "configurations/{name}", hub.Permission{Rights: mayWriteOrServe, Action: "configurations/delete"}, (*Door).deleteConfiguration, 0},
}

// A routeMatch is what the route table says of a method and a path.
type routeMatch struct {
	route *route // nil if there is none
	known bool   // the path fits, perhaps with another method
	id    hub.ID
	name  string

	// allowed are the service's routes that the caller must have the right to
	// before it learns anything: the one route, or all of the path when the
	// method is not among them, or all there are when the path is unknown.
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
		if !r.is(byDevice) {
			m.allowed = append(m.allowed, r)
		}
	}
	if len(m.allowed) == 0 {
		for i := range routes {
			if !routes[i].is(byDevice | control) {
				m.allowed = append(m.allowed, &routes[i])
			}
		}
	}
	return m
}

// match compares a path with the route's, fixed words without regard to case.
func (r *route) match(segments []string) (id hub.ID, name string, ok bool) {
	rest, more := r.path, true
	for _, segment := range segments {
		if !more {
			return hub.ID{}, "", false
		}
		var word string
		word, rest, more = strings.Cut(rest, "/")
		if segment == "" {
			return hub.ID{}, "", false
		}
		switch word {
		case "{device}":
			id.Device = segment
		case "{module}":
			id.Module = segment
		case "{name}":
			name = segment
		case "{component}": // no operation reads it yet
		default:
			if !strings.EqualFold(word, segment) {
				return hub.ID{}, "", false
			}
		}
	}
	return id, name, !more && len(segments) > 0
}
