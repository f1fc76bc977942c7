package mqtt

import (
	"strings"
)

// The topics of the provisioning service.
const (
	registrationTopics      = "$dps/registrations/"
	registerTopic           = registrationTopics + "PUT/iotdps-register/"
	operationTopic          = registrationTopics + "GET/iotdps-get-operationstatus/"
	registrationAnswerTopic = registrationTopics + "res/"
)

// A registrationName is the user name of a device that asks for its hub.
type registrationName struct{ scope, id string }

// parseRegistrationName reads the user name, "scope/registrations/id" followed by
// "/" and a query, or by nothing, and reports whether it is one. Whatever the query
// says, api-version or not, is taken (assumed). The client id, which is the same id,
// tells it from that of a device called "registrations".
func parseRegistrationName(clientID, name string) (registrationName, bool) {
	segments := strings.SplitN(name, "/", 4)
	if len(segments) < 3 || segments[1] != "registrations" || strings.Contains(clientID, "/") {
		return registrationName{}, false
	}
	n := registrationName{segments[0], segments[2]}
	if clientID == "registrations" && n.id != clientID {
		return registrationName{}, false
	}
	return n, true
}

// A registrationRequest is what the topic of a PUBLISH asks of the provisioning
// service.
type registrationRequest struct {
	rid       string // as the device wrote it, to be echoed byte for byte
	poll      bool   // it asks for an operation, and not to be registered
	operation string // which, if it says so
}

// parseRegistrationTopic reads the topic of a PUBLISH.
func parseRegistrationTopic(topic string) (registrationRequest, error) {
	var r registrationRequest
	query, ok := strings.CutPrefix(topic, registerTopic+"?")
	if !ok {
		if query, ok = strings.CutPrefix(topic, operationTopic+"?"); !ok {
			return r, errTopic
		}
		r.poll = true
	}
	for pair := range strings.SplitSeq(query, "&") {
		key, value, _ := strings.Cut(pair, "=")
		switch unescapeLeniently(key) {
		case "$rid":
			r.rid = value
		case "operationId":
			r.operation = unescapeLeniently(value)
		}
	}
	if r.rid == "" || len(r.rid) > maxRequestID {
		return r, errRequestID
	}
	return r, nil
}
