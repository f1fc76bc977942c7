package mqtt

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
)

// everyID holds all punctuation that an id may have.
const everyID = "a-:.+%_#*?!(),=@;$'z"

var odd = hub.ID{Device: everyID, Module: everyID}

var (
	testDevice = hub.ID{Device: "d1"}
	testModule = hub.ID{Device: "d1", Module: "m1"}
)

func TestParseTopic(t *testing.T) {
	for _, tt := range []struct {
		name  string
		id    hub.ID
		topic string
		want  request // zero and err below: refused
		err   bool
	}{
		{"telemetry without properties", testDevice, "devices/d1/messages/events/", request{kind: sendTelemetry}, false},
		{"telemetry without a slash", testDevice, "devices/d1/messages/events", request{kind: sendTelemetry}, false},
		{"telemetry with properties", testDevice, "devices/d1/messages/events/%24.mid=1&a=b%20c", request{kind: sendTelemetry, bag: "%24.mid=1&a=b%20c"}, false},
		{"a module's telemetry", testModule, "devices/d1/modules/m1/messages/events/a=b/", request{kind: sendTelemetry, bag: "a=b/"}, false},
		{"the device's telemetry from a module", testModule, "devices/d1/messages/events/", request{}, true},
		{"twin", testDevice, "$iothub/twin/GET/?$rid=00000000-0000-4000-8000-000000000001", request{kind: getTwin, rid: "00000000-0000-4000-8000-000000000001", version: hub.AnyVersion}, false},
		{"reported", testDevice, "$iothub/twin/PATCH/properties/reported/?$rid=2", request{kind: patchReported, rid: "2", version: hub.AnyVersion}, false},
		{"reported with a version", testDevice, "$iothub/twin/PATCH/properties/reported/?$rid=2&$version=7", request{kind: patchReported, rid: "2", version: 7}, false},
		{"reported with the version first and encoded", testDevice, "$iothub/twin/PATCH/properties/reported/?%24version=7&%24rid=2", request{kind: patchReported, rid: "2", version: 7}, false},
		{"a request id is echoed as it came", testDevice, "$iothub/twin/GET/?$rid=A%2Fb", request{kind: getTwin, rid: "A%2Fb", version: hub.AnyVersion}, false},
		{"a method's answer", testDevice, "$iothub/methods/res/200/?$rid=A7", request{kind: answerMethod, rid: "a7", status: "200", version: hub.AnyVersion}, false},
		{"a negative version", testDevice, "$iothub/twin/PATCH/properties/reported/?$rid=2&$version=-1", request{}, true},
		{"no question mark", testDevice, "$iothub/twin/GET/$rid=1", request{}, true},
		{"nothing", testDevice, "", request{}, true},
		{"ids of every character", odd, "devices/" + everyID + "/modules/" + everyID + "/messages/events/a=b", request{kind: sendTelemetry, bag: "a=b"}, false},
		{"an id that is a wildcard", hub.ID{Device: "+"}, "devices/+/messages/events/", request{kind: sendTelemetry}, false},
		{"an id that is the other wildcard", hub.ID{Device: "#"}, "devices/#/messages/events/", request{kind: sendTelemetry}, false},
		{"an id that looks encoded", hub.ID{Device: "a%41"}, "devices/a%41/messages/events/", request{kind: sendTelemetry}, false},
		{"a wildcard for the id", testDevice, "devices/+/messages/events/", request{}, true},
		{"an encoded id", hub.ID{Device: "a#"}, "devices/a%23/messages/events/", request{}, true},
		{"an id that only decodes to its own", hub.ID{Device: "aA"}, "devices/a%41/messages/events/", request{}, true},
		{"the id in another case", testDevice, "devices/D1/messages/events/", request{}, true},
		{"an id that begins with its own", testDevice, "devices/d12/messages/events/", request{}, true},
		{"another module's telemetry", testModule, "devices/d1/modules/m2/messages/events/", request{}, true},
		{"a module's telemetry from its device", testDevice, "devices/d1/modules/m1/messages/events/", request{}, true},
		{"a segment more", testDevice, "devices/d1/messages/events2/", request{}, true},
		{"words in another case", testDevice, "devices/d1/Messages/Events/", request{}, true},
		{"a slash in front", testDevice, "/devices/d1/messages/events/", request{}, true},
		{"messages to the device", testDevice, "devices/d1/messages/devicebound/", request{}, true},
		{"a request id of 128 characters", testDevice, "$iothub/twin/GET/?$rid=" + strings.Repeat("r", 128), request{kind: getTwin, rid: strings.Repeat("r", 128), version: hub.AnyVersion}, false},
		{"a request id of 129 characters", testDevice, "$iothub/twin/GET/?$rid=" + strings.Repeat("r", 129), request{}, true},
		{"a twin without a request id", testDevice, "$iothub/twin/GET/", request{}, true},
		{"an empty request id", testDevice, "$iothub/twin/GET/?$rid=", request{}, true},
		{"a request id of every character", testDevice, "$iothub/twin/GET/?$rid=a-:.+%_#*?!(),=@;$'/z", request{kind: getTwin, rid: "a-:.+%_#*?!(),=@;$'/z", version: hub.AnyVersion}, false},
		{"reported without a request id", testDevice, "$iothub/twin/PATCH/properties/reported/?$version=7", request{kind: patchReported, version: 7}, false},
		{"a version that is no number", testDevice, "$iothub/twin/PATCH/properties/reported/?$rid=2&$version=x", request{}, true},
		{"desired properties", testDevice, "$iothub/twin/PATCH/properties/desired/?$rid=2", request{}, true},
		{"a twin's segment more", testDevice, "$iothub/twin/GET/x/?$rid=1", request{}, true},
		{"a method's answer without a request id", testDevice, "$iothub/methods/res/200/", request{}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseTopic(tt.id, tt.topic)
			if (err != nil) != tt.err {
				t.Fatalf("parseTopic(%v, %q): %v", tt.id, tt.topic, err)
			}
			if tt.err {
				return
			}
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(request{})); diff != "" {
				t.Errorf("parseTopic(%v, %q) (-want +got):\n%s", tt.id, tt.topic, diff)
			}
		})
	}
}

func TestFilters(t *testing.T) {
	const (
		method  = "$iothub/methods/POST/reboot/?"
		desired = "$iothub/twin/PATCH/properties/desired/?$version=3"
		message = "devices/d1/messages/devicebound/?"
	)
	for _, tt := range []struct {
		id      hub.ID
		filter  string
		allowed bool
		takes   string // the topics it matches
	}{
		{testDevice, "$iothub/methods/POST/#", true, method},
		{testDevice, "$iothub/methods/POST/reboot/#", true, method},
		{testDevice, "$iothub/methods/POST/reboo/#", true, ""},
		{testDevice, "$iothub/methods/POST/+/#", true, method},
		{testDevice, "$iothub/methods/POST/+", true, ""},
		{testDevice, "$iothub/#", true, method + desired},
		{testDevice, "$iothub/twin/PATCH/properties/desired/#", true, desired},
		{testDevice, "$iothub/twin/PATCH/#", true, desired},
		{testDevice, "$iothub/twin/res/#", true, ""},
		{testDevice, "$iothub/methods/#/POST", true, ""},
		{testDevice, "devices/d1/messages/devicebound/#", true, message},
		{testDevice, "devices/+/messages/devicebound/#", true, message},
		{testDevice, "devices/d1/#", true, message},
		{testDevice, "devices/d1/messages/devicebound", true, ""},
		{testDevice, "devices/#", false, ""},
		{testDevice, "devices/d2/messages/devicebound/#", false, ""},
		{testDevice, "#", false, ""},
		{testDevice, "+/d1/#", false, ""},
		{hub.ID{Device: "#"}, "devices/#/messages/devicebound/#", true, ""},
		{hub.ID{Device: "+"}, "devices/+/messages/devicebound/#", true, ""},
		{testModule, "devices/d1/modules/m1/#", true, ""},
		{testModule, "devices/d1/modules/m1/inputs/#", true, ""},
		{testModule, "devices/d1/modules/m1/messages/devicebound/#", true, ""},
		{testModule, "devices/d2/modules/m1/#", false, ""},
		{hub.ID{Device: "a%41"}, "devices/a%41/messages/devicebound/#", true, ""},
		{hub.ID{Device: "aA"}, "devices/a%41/messages/devicebound/#", false, ""},
		{testDevice, "devices/D1/messages/devicebound/#", false, ""},
		{testDevice, "devices/d12/#", false, ""},
		{testDevice, "devices/d1", false, ""},
		{testDevice, "devices/+", false, ""},
		{testDevice, "devices/+/+/devicebound/#", true, message},
		{testDevice, "+/+/messages/devicebound/#", false, ""},
		{testDevice, "$iothub", false, ""},
		{testDevice, "$IOTHUB/methods/POST/#", false, ""},
		{testDevice, "$SYS/#", false, ""},
		{testDevice, "", false, ""},
	} {
		if got := allowed(tt.id, tt.filter); got != tt.allowed {
			t.Errorf("%v.allowed(%q) = %v", tt.id, tt.filter, got)
		}
		for _, topic := range []string{method, desired, message} {
			if got, want := matches(tt.id, tt.filter, topic), strings.Contains(tt.takes, topic); got != want {
				t.Errorf("%v.matches(%q, %q) = %v, want %v", tt.id, tt.filter, topic, got, want)
			}
		}
	}
	odd := hub.ID{Device: everyID}
	if topic := topicPrefix(odd) + messagesTopic + "?"; !matches(odd, "devices/"+everyID+"/messages/devicebound/#", topic) {
		t.Errorf("%v does not match %q", odd, topic)
	}
}

func FuzzParseTopic(f *testing.F) {
	for _, s := range []string{"devices/d1/messages/events/%24.mid=1&a", "devices/d1/modules/m1/messages/events/x=y/", "$iothub/twin/GET/?$rid=1",
		"$iothub/twin/PATCH/properties/reported/?$rid=2&$version=7", "$iothub/methods/res/200/?$rid=1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, topic string) {
		for _, id := range []hub.ID{testDevice, testModule} {
			r, err := parseTopic(id, topic)
			if err != nil {
				continue
			}
			if len(r.rid) > maxRequestID || r.version < hub.AnyVersion {
				t.Errorf("parseTopic(%v, %q) = %+v", id, topic, r)
			}
			if r.kind == sendTelemetry && !strings.HasPrefix(topic, topicPrefix(id)) {
				t.Errorf("%v may send to %q", id, topic)
			}
		}
	})
}

func FuzzFilter(f *testing.F) {
	for _, s := range []string{"devices/+/messages/devicebound/#", "devices/d1/#", "$iothub/methods/POST/#", "+/+/#", "#"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, filter string) {
		for _, topic := range []string{methodTopic + "m/?$rid=1", topicPrefix(testDevice) + messagesTopic + "%24.to=x"} {
			if matches(testDevice, filter, topic) && !allowed(testDevice, filter) {
				t.Errorf("%q takes %q and is not allowed", filter, topic)
			}
		}
		if matches(testDevice, filter, "devices/d2/messages/devicebound/x") {
			t.Errorf("%q takes another device's messages", filter)
		}
	})
}
