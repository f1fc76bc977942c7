package mqttdevice

import (
	"strconv"
	"strings"
)

// Topics between a device and the hub, up to the part that varies. Ids and method names stand in
// topics as they are; only property bags are percent-encoded.
const (
	methodTopic       = "$iothub/methods/POST/"                   // {name}/?$rid={rid}
	methodAnswerTopic = "$iothub/methods/res/"                    // {status}/?$rid={rid}
	twinAnswerTopic   = "$iothub/twin/res/"                       // {status}/?$rid={rid}[&$version={n}]
	twinGetTopic      = "$iothub/twin/GET/"                       // ?$rid={rid}
	reportedTopic     = "$iothub/twin/PATCH/properties/reported/" // ?$rid={rid}
	desiredPatchTopic = "$iothub/twin/PATCH/properties/desired/"  // ?$version={n}
)

// messageTopic is where the hub sends cloud-to-device messages, up to their properties.
func messageTopic(id string) string { return "devices/" + id + "/messages/devicebound/" }

// messageFilter is what to subscribe to for messageTopic. Of an id that is a wildcard, paho takes no filter with "#" in
// the middle; "+" stands for the device's own id, as in the SDK for embedded C.
func messageFilter(id string) string {
	if id == "#" {
		id = "+"
	}
	return messageTopic(id) + "#"
}

func parseMethodTopic(topic string) (name, rid string, ok bool) {
	name, query, _ := strings.Cut(strings.TrimPrefix(topic, methodTopic), "/")
	rid, ok = param(query, "$rid")
	return name, rid, ok && name != "" && rid != ""
}

// The version is 0 if there is none: only the answer to a patch has one.
func parseTwinAnswerTopic(topic string) (status int, rid string, version int64, ok bool) {
	code, query, _ := strings.Cut(strings.TrimPrefix(topic, twinAnswerTopic), "/")
	status, err := strconv.Atoi(code)
	rid, ok = param(query, "$rid")
	if v, found := param(query, "$version"); found {
		version, _ = strconv.ParseInt(v, 10, 64)
	}
	return status, rid, version, ok && err == nil
}

func parseDesiredPatchTopic(topic string) (version int64, ok bool) {
	v, _ := param(strings.TrimPrefix(topic, desiredPatchTopic), "$version")
	version, err := strconv.ParseInt(v, 10, 64)
	return version, err == nil
}

// param finds a value in "?name=value&name=value".
func param(query, name string) (value string, ok bool) {
	for pair := range strings.SplitSeq(strings.TrimPrefix(query, "?"), "&") {
		if n, v, _ := strings.Cut(pair, "="); n == name {
			return v, true
		}
	}
	return "", false
}
