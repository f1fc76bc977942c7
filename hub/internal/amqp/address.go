package amqp

import (
	"net/url"
	"strings"

	"github.com/iotdm/iotdm/hub"
)

// A node is what an address names.
type node int

// The nodes, with what their peer is.
const (
	nodeUnknown           node = iota
	nodeCBS                    // $cbs, anybody
	nodeManagement             // $management, a reader of events
	nodeMessages               // /messages/devicebound, a service that sends
	nodeFeedback               // /messages/servicebound/feedback, a service that receives
	nodeFileNotifications      // /messages/servicebound/filenotifications, a service that receives
	nodeEventsRedirect         // /messages/events and below, a service that is sent to the built-in endpoint
	nodePartition              // {event hub}/ConsumerGroups/{group}/Partitions/{partition}, a reader
	nodeDeviceEvents           // of a device or module: .../messages/events, it sends (a module also receives inputs)
	nodeDeviceMessages         // .../messages/devicebound, it receives
	nodeDeviceMethods          // .../methods/devicebound, both
	nodeDeviceTwin             // .../twin, both
	nodeRegistration           // {id scope}/registrations/{registration id}, both; a device that asks the provisioning service
)

// An address is a link's, taken apart.
type address struct {
	node      node
	id        hub.ID // of a device's or module's node
	hub       string // the event hub's name, as it was written
	group     string
	partition string

	scope, registration string // of the provisioning service
}

// maxAddress bounds what is looked at: two ids of 128 characters that are
// percent-encoded twice over, and the rest of an address, are shorter.
const maxAddress = 2048

// parseAddress reads an address of any of the shapes that clients send: with or
// without scheme and host, with or without a leading slash, with words in any
// case and ids percent-encoded or not.
func parseAddress(text string) address {
	if len(text) > maxAddress {
		return address{}
	}
	if _, after, ok := strings.Cut(text, "://"); ok {
		_, text, _ = strings.Cut(after, "/") // without the host
	}
	text = strings.TrimSuffix(strings.TrimPrefix(text, "/"), "/")
	segments := strings.Split(text, "/")
	for i, segment := range segments {
		// One that is not encoded stands for itself: Java and Python write ids as
		// they are, and those may contain "%".
		if plain, err := url.PathUnescape(segment); err == nil {
			segments[i] = plain
		}
	}
	is := func(at int, words ...string) bool {
		if len(segments) != at+len(words) {
			return false
		}
		for i, word := range words {
			if word != "" && !strings.EqualFold(segments[at+i], word) {
				return false
			}
		}
		return true
	}
	switch {
	case is(0, "$cbs"):
		return address{node: nodeCBS}
	case is(0, "$management"):
		return address{node: nodeManagement}
	case is(0, "messages", "devicebound"):
		return address{node: nodeMessages}
	case is(0, "messages", "servicebound", "feedback"):
		return address{node: nodeFeedback}
	case is(0, "messages", "servicebound", "filenotifications"):
		return address{node: nodeFileNotifications}
	case len(segments) >= 2 && strings.EqualFold(segments[0], "messages") && strings.EqualFold(segments[1], "events"):
		return address{node: nodeEventsRedirect}
	case is(0, "", "consumergroups", "", "partitions", ""):
		a := address{node: nodePartition, hub: segments[0], group: segments[2], partition: segments[4]}
		if a.hub == "" || a.group == "" || a.partition == "" {
			return address{}
		}
		return a
	case is(0, "", "registrations", "") && !strings.EqualFold(segments[0], "devices"):
		a := address{node: nodeRegistration, scope: segments[0], registration: segments[2]}
		if a.scope == "" || a.registration == "" {
			return address{}
		}
		return a
	case len(segments) < 3 || !strings.EqualFold(segments[0], "devices"):
		return address{}
	}
	a, at := address{id: hub.ID{Device: segments[1]}}, 2
	if len(segments) > 4 && strings.EqualFold(segments[2], "modules") {
		a.id.Module, at = segments[3], 4
	}
	switch {
	case is(at, "messages", "events"):
		a.node = nodeDeviceEvents
	case is(at, "messages", "devicebound"):
		a.node = nodeDeviceMessages
	case is(at, "methods", "devicebound"):
		a.node = nodeDeviceMethods
	case is(at, "twin"):
		a.node = nodeDeviceTwin
	default:
		return address{}
	}
	if a.id.Validate() != nil || at == 4 && a.id.Module == "" {
		return address{}
	}
	return a
}
