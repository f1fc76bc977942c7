package hub

import "strings"

// A route is one operation of the service's REST API.
type route struct {
	method string
	path   string // fixed words, and {device}, {module} and {name}
	rights anyOf  // what a shared access policy needs
	action string // the Entra ID permissions, without Microsoft.Devices/IotHubs/, separated by blanks
	handle func(*Server, *restRequest) (reply, error)
	traits traits
}

// traits are what is special about a route.
type traits uint8

const (
	nested   traits = 1 << iota // errors are in the envelope of direct methods
	byDevice                    // the caller is the device or module of the path, with its own credential
)

func (r *route) is(t traits) bool { return r.traits&t != 0 }

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
// Microsoft Entra ID". What begins with "iotdm" is this hub's own.
var routes = []route{
	{"GET", "devices", mayRead, "devices/read", (*Server).restListDevices, 0},
	{"POST", "devices", mayWrite, "devices/write devices/delete", (*Server).restBulk, 0},
	{"POST", "devices/query", mayReadOrServe, "twins/read", (*Server).restQuery, 0},
	{"POST", "devices/keys/regenerate", mayWrite, "devices/write", (*Server).restRegenerateKeys, 0},
	{"GET", "devices/{device}", mayRead, "devices/read", (*Server).restGetDevice, 0},
	{"PUT", "devices/{device}", mayWrite, "devices/write", (*Server).restPutDevice, 0},
	{"DELETE", "devices/{device}", mayWrite, "devices/delete", (*Server).restDeleteIdentity, 0},
	{"POST", "devices/{device}/applyConfigurationContent", mayWriteOrServe, "configurations/applyToEdgeDevice/action", (*Server).restApplyContent, 0},

	{"GET", "devices/{device}/modules", mayRead, "devices/read", (*Server).restListModules, 0},
	{"GET", "devices/{device}/modules/{module}", mayRead, "devices/read", (*Server).restGetModule, 0},
	{"PUT", "devices/{device}/modules/{module}", mayWrite, "devices/write", (*Server).restPutModule, 0},
	{"DELETE", "devices/{device}/modules/{module}", mayWrite, "devices/delete", (*Server).restDeleteIdentity, 0},

	{"POST", "devices/{device}/messages/deviceBound", mayServe, "cloudToDeviceMessages/send/action", (*Server).restSendMessage, 0},
	{"DELETE", "devices/{device}/commands", mayServe, "cloudToDeviceMessages/queue/purge/action", (*Server).restPurgeMessages, 0},
	{"GET", "messages/serviceBound/feedback", mayServe, "cloudToDeviceMessages/feedback/action", (*Server).restReceiveFeedback, 0},
	{"DELETE", "messages/serviceBound/feedback/{name}", mayServe, "cloudToDeviceMessages/feedback/action", (*Server).restCompleteFeedback, 0},
	{"POST", "messages/serviceBound/feedback/{name}/abandon", mayServe, "cloudToDeviceMessages/feedback/action", (*Server).restAbandonFeedback, 0},

	{"POST", "devices/{device}/messages/events", nil, "", (*Server).restReceiveTelemetry, byDevice},
	{"POST", "devices/{device}/modules/{module}/messages/events", nil, "", (*Server).restReceiveTelemetry, byDevice},
	{"GET", "devices/{device}/messages/deviceBound", nil, "", (*Server).restReceiveMessage, byDevice},
	{"DELETE", "devices/{device}/messages/deviceBound/{name}", nil, "", (*Server).restSettleMessage, byDevice},
	{"POST", "devices/{device}/messages/deviceBound/{name}/abandon", nil, "", (*Server).restAbandonMessage, byDevice},
	{"POST", "devices/{device}/files", nil, "", restUnavailable("file uploads are"), byDevice},
	{"POST", "devices/{device}/files/notifications", nil, "", restUnavailable("file uploads are"), byDevice},
	{"POST", "devices/{device}/files/notifications/{name}", nil, "", restUnavailable("file uploads are"), byDevice},

	{"GET", "statistics/devices", mayRead, "statistics/read", (*Server).restDeviceStatistics, 0},
	{"GET", "statistics/service", mayServe, "statistics/read", (*Server).restServiceStatistics, 0},

	{"GET", "twins/{device}", mayServe, "twins/read", (*Server).restGetTwin, 0},
	{"PATCH", "twins/{device}", mayServe, "twins/write", (*Server).restPatchTwin, 0},
	{"PUT", "twins/{device}", mayServe, "twins/write", (*Server).restReplaceTwin, 0},
	{"GET", "twins/{device}/modules/{module}", mayServe, "twins/read", (*Server).restGetTwin, 0},
	{"PATCH", "twins/{device}/modules/{module}", mayServe, "twins/write", (*Server).restPatchTwin, 0},
	{"PUT", "twins/{device}/modules/{module}", mayServe, "twins/write", (*Server).restReplaceTwin, 0},

	{"POST", "twins/{device}/methods", mayServe, "directMethods/invoke/action", (*Server).restInvokeMethod, nested},
	{"POST", "twins/{device}/modules/{module}/methods", mayServe, "directMethods/invoke/action", (*Server).restInvokeMethod, nested},

	{"GET", "digitaltwins/{device}", mayServe, "twins/read", restUnavailable("digital twins are"), 0},
	{"PATCH", "digitaltwins/{device}", mayServe, "twins/write", restUnavailable("digital twins are"), 0},
	{"POST", "digitaltwins/{device}/commands/{name}", mayServe, "directMethods/invoke/action", restUnavailable("digital twins are"), nested},
	{"POST", "digitaltwins/{device}/components/{component}/commands/{name}", mayServe, "directMethods/invoke/action", restUnavailable("digital twins are"), nested},

	{"GET", "iotdm/events", mayServe, "events/read", (*Server).restEvents, 0},

	{"GET", "iotdm/certificates", mayRead, "certificates/read", (*Server).restListCAs, 0},
	{"PUT", "iotdm/certificates/{name}", mayWrite, "certificates/write", (*Server).restPutCA, 0},
	{"POST", "iotdm/certificates/{name}/verify", mayWrite, "certificates/write", (*Server).restVerifyCA, 0},
	{"DELETE", "iotdm/certificates/{name}", mayWrite, "certificates/delete", (*Server).restDeleteCA, 0},

	{"POST", "jobs/create", mayReadWrite, "jobs/write", (*Server).restCreateImportJob, 0},
	{"GET", "jobs", mayReadWrite, "jobs/read", (*Server).restListImportJobs, 0},
	{"GET", "jobs/{name}", mayReadWrite, "jobs/read", (*Server).restGetImportJob, 0},
	{"DELETE", "jobs/{name}", mayReadWrite, "jobs/delete", (*Server).restGetImportJob, 0},

	{"GET", "jobs/v2/query", mayServe, "jobs/read", (*Server).restListJobs, 0},
	{"GET", "jobs/v2/{name}", mayServe, "jobs/read", (*Server).restGetJob, 0},
	{"PUT", "jobs/v2/{name}", mayServe, "jobs/write", (*Server).restPutJob, 0},
	{"POST", "jobs/v2/{name}/cancel", mayServe, "jobs/delete", (*Server).restCancelJob, 0},

	{"POST", "configurations/testQueries", mayReadOrServe, "configurations/testQueries/action", (*Server).restTestConfiguration, 0},
	{"GET", "configurations", mayReadOrServe, "configurations/read", (*Server).restListConfigurations, 0},
	{"GET", "configurations/{name}", mayReadOrServe, "configurations/read", (*Server).restGetConfiguration, 0},
	{"PUT", "configurations/{name}", mayWriteOrServe, "configurations/write", (*Server).restPutConfiguration, 0},
	{"DELETE", "configurations/{name}", mayWriteOrServe, "configurations/delete", (*Server).restDeleteConfiguration, 0},
}

// A routeMatch is what the route table says of a method and a path.
type routeMatch struct {
	route *route // nil if there is none
	known bool   // the path fits, perhaps with another method
	id    ID
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
			if !routes[i].is(byDevice) {
				m.allowed = append(m.allowed, &routes[i])
			}
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
		case "{component}": // no operation reads it yet
		default:
			if !strings.EqualFold(word, segment) {
				return ID{}, "", false
			}
		}
	}
	return id, name, !more && len(segments) > 0
}
