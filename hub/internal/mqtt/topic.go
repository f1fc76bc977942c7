package mqtt

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/words"
)

// The topics a device publishes to and subscribes to are listed in
// "Communicate with IoT Hub using the MQTT protocol". Ids stand in them as they
// are: an id that contains "%", "+" or "#" is compared byte for byte and never
// decoded or taken for a wildcard.
const (
	twinGetTopic      = "$iothub/twin/GET/"
	reportedTopic     = "$iothub/twin/PATCH/properties/reported/"
	methodAnswerTopic = "$iothub/methods/res/"

	twinAnswerTopic = "$iothub/twin/res/"
	desiredTopic    = "$iothub/twin/PATCH/properties/desired/"
	methodTopic     = "$iothub/methods/POST/"

	serviceTopics = "$iothub/"
	deviceTopics  = "devices/"
	eventsTopic   = "messages/events" // behind the identity's own prefix
	messagesTopic = "messages/devicebound/"

	maxRequestID = 128
)

// topicOfMethod is the topic of a direct method.
func topicOfMethod(name, rid string) string { return methodTopic + name + "/?$rid=" + rid }

// topicPrefix is how the identity's own topics begin.
func topicPrefix(id hub.ID) string {
	if id.Module == "" {
		return deviceTopics + id.Device + "/"
	}
	return deviceTopics + id.Device + "/modules/" + id.Module + "/"
}

// A request is what the topic of a device's PUBLISH asks for.
type request struct {
	kind    requestKind
	rid     string // as the device wrote it, to be echoed byte for byte
	version int64  // of the reported properties that a patch is for, or AnyVersion
	status  string // of a direct method's answer
	bag     string // the property bag of telemetry, not decoded
}

type requestKind uint8

const (
	sendTelemetry requestKind = iota
	getTwin
	patchReported
	answerMethod
)

var (
	errTopic     = errors.New("the topic is none that this identity may publish to")
	errRequestID = errors.New("the topic has no usable $rid")
)

// parseTopic reads the topic of a PUBLISH from the identity.
func parseTopic(id hub.ID, topic string) (request, error) {
	if rest, ok := strings.CutPrefix(topic, topicPrefix(id)); ok {
		bag, ok := strings.CutPrefix(rest, eventsTopic)
		if !ok || bag != "" && bag[0] != '/' {
			return request{}, errTopic
		}
		return request{kind: sendTelemetry, bag: strings.TrimPrefix(bag, "/")}, nil
	}
	if rest, ok := strings.CutPrefix(topic, twinGetTopic); ok {
		r, err := parseTwinQuery(rest)
		if err == nil && r.rid == "" {
			err = errRequestID
		}
		r.kind = getTwin
		return r, err
	}
	if rest, ok := strings.CutPrefix(topic, reportedTopic); ok {
		// Without a $rid the patch is applied and nothing is answered.
		r, err := parseTwinQuery(rest)
		r.kind = patchReported
		return r, err
	}
	if rest, ok := strings.CutPrefix(topic, methodAnswerTopic); ok {
		status, query, _ := strings.Cut(rest, "/")
		r, err := parseTwinQuery(query)
		if err == nil && r.rid == "" {
			err = errRequestID
		}
		// The hub's request ids are lower-case hexadecimal; Python encodes
		// what it echoes.
		r.rid = strings.ToLower(unescapeLeniently(r.rid))
		r.kind, r.status = answerMethod, status
		return r, err
	}
	return request{}, errTopic
}

// parseTwinQuery reads "?$rid=1&$version=2".
func parseTwinQuery(s string) (request, error) {
	r := request{version: hub.AnyVersion}
	query, ok := strings.CutPrefix(s, "?")
	if !ok {
		return r, errTopic
	}
	for pair := range strings.SplitSeq(query, "&") {
		key, value, _ := strings.Cut(pair, "=")
		switch unescapeLeniently(key) {
		case "$rid":
			if value == "" || len(value) > maxRequestID {
				return r, errRequestID
			}
			r.rid = value
		case "$version":
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil || n < 0 {
				return r, fmt.Errorf("the topic's $version %q is not a number", words.Clip(value))
			}
			r.version = n
		}
	}
	return r, nil
}

// A subscription is one topic filter of an identity with the QoS granted.
type subscription struct {
	filter string
	qos    byte
}

// allowed reports whether the identity may subscribe to the filter. Among its
// own topics any filter is granted, whether or not the hub ever sends to it.
func allowed(id hub.ID, filter string) bool {
	return strings.HasPrefix(filter, serviceTopics) || underDevice(id, filter) != ""
}

// underDevice returns what follows the device's prefix in a filter or topic.
// Embedded C writes "+" for the id.
func underDevice(id hub.ID, filter string) string {
	rest, ok := strings.CutPrefix(filter, deviceTopics)
	if !ok {
		return ""
	}
	if own, ok := strings.CutPrefix(rest, id.Device+"/"); ok {
		return own
	}
	own, _ := strings.CutPrefix(rest, "+/")
	if own == rest {
		return ""
	}
	return own
}

// matches reports whether the filter takes a topic of the hub for the
// identity.
func matches(id hub.ID, filter, topic string) bool {
	if strings.HasPrefix(topic, serviceTopics) {
		return strings.HasPrefix(filter, serviceTopics) && matchLevels(filter, topic)
	}
	own, rest := underDevice(id, filter), underDevice(id, topic)
	return own != "" && rest != "" && matchLevels(own, rest)
}

// matchLevels is MQTT's matching of a filter with wildcards against a topic.
func matchLevels(filter, topic string) bool {
	for {
		f, restFilter, moreFilter := strings.Cut(filter, "/")
		if f == "#" {
			return !moreFilter
		}
		t, restTopic, moreTopic := strings.Cut(topic, "/")
		if f != "+" && f != t {
			return false
		}
		if !moreTopic {
			return !moreFilter || restFilter == "#"
		}
		if !moreFilter {
			return false
		}
		filter, topic = restFilter, restTopic
	}
}
