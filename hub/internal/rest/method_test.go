package rest_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/iotdm/iotdm/hub/clock"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
)

const offline = "The operation failed because the requested device isn't online or hasn't registered the direct method callback. To learn more, see https://aka.ms/iothub404103"

func TestMethodsThatReachNoDevice(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	h.Do(wiretest.Call{Method: "PUT", Path: "/devices/dev1", Body: `{}`}).Want(t, 200, "")
	h.Do(wiretest.Call{Method: "PUT", Path: "/devices/dev2", Body: `{"status":"disabled"}`}).Want(t, 200, "")
	for name, tt := range map[string]struct {
		path, body         string
		status             int
		header, code, text string
		info               string
	}{
		"an offline device":    {"dev1", `{"methodName":"m"}`, 404, "DeviceNotOnline", "404103", offline, `{"timeout":"00:00:00"}`},
		"an unknown device":    {"dev3", `{"methodName":"m"}`, 404, "DeviceNotFound", "404001", "dev3", "null"},
		"a disabled device":    {"dev2", `{"methodName":"m"}`, 404, "DeviceNotFound", "404001", "dev2", "null"},
		"an unknown module":    {"dev1/modules/m1", `{"methodName":"m"}`, 404, "ModuleNotFound", "404010", "device dev1 has no module m1", "null"},
		"no name":              {"dev1", `{"payload":1}`, 400, "ArgumentNull", "400005", "methodName is required", "null"},
		"no body":              {"dev1", ``, 400, "ArgumentNull", "400005", "BadRequest", "null"},
		"a name with a slash":  {"dev1", `{"methodName":"a/b"}`, 400, "ArgumentInvalid", "400004", "methodName must not contain '/'", "null"},
		"a response timeout":   {"dev1", `{"methodName":"m","responseTimeoutInSeconds":4}`, 400, "ArgumentInvalid", "400004", "responseTimeoutInSeconds must be within [5; 300].", "null"},
		"no response timeout":  {"dev1", `{"methodName":"m","responseTimeoutInSeconds":0}`, 400, "ArgumentInvalid", "400004", "responseTimeoutInSeconds must be within [5; 300].", "null"},
		"a timeout as a word":  {"dev1", `{"methodName":"m","responseTimeoutInSeconds":"long"}`, 400, "ArgumentInvalid", "400004", "responseTimeoutInSeconds must not be of type string", "null"},
		"a timeout as a text":  {"dev1", `{"methodName":"m","responseTimeoutInSeconds":"4"}`, 400, "ArgumentInvalid", "400004", "responseTimeoutInSeconds must be within [5; 300].", "null"},
		"a connect timeout":    {"dev1", `{"methodName":"m","connectTimeoutInSeconds":301}`, 400, "ArgumentInvalid", "400004", "connectTimeoutInSeconds must be within [0; 300].", "null"},
		"no time at all":       {"dev1", `{"methodName":"m","connectTimeoutInSeconds":9223372036854775807}`, 400, "ArgumentInvalid", "400004", "connectTimeoutInSeconds must be within [0; 300].", "null"},
		"a payload over 128 K": {"dev1", `{"methodName":"m","payload":"` + strings.Repeat("x", 128<<10) + `"}`, 413, "MessageTooLarge", "413001", "payload must be at most 131072 bytes", "null"},
	} {
		t.Run(name, func(t *testing.T) {
			h.Do(wiretest.Call{Method: "POST", Path: "/twins/" + tt.path + "/methods", Body: tt.body}).WantNested(t, tt.status, tt.header, tt.code, tt.text, tt.info)
		})
	}
	h.Do(wiretest.Call{Method: "POST", Path: "/twins/dev1/methods", Body: `{"methodName":"m"}`, Token: "-"}).
		WantNested(t, 401, "IotHubUnauthorizedAccess", "401002", "Unauthorized", "null")
}

func TestMethodCarriesJSONByteForByte(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{Clock: clock.New()})
	d := wiretest.DialTLS(t, h.Hub)
	d.Connect(h.Module("dev1", "mod1"))
	d.Subscribe(0, "$iothub/methods/POST/#")
	for _, tt := range []struct{ name, body, sent, status, payload, want string }{
		{"an object", `{"methodName":"m","payload":{ "a" : 1.50, "b":"<&>" }}`, `{ "a" : 1.50, "b":"<&>" }`, "200", `{"x" : 1e2}`, `{"status":200,"payload":{"x" : 1e2}}`},
		{"none", `{"methodName":"m"}`, ``, "200", ``, `{"status":200,"payload":null}`},
		{"null", `{"MethodName":"m","Payload":null,"connectTimeoutInSeconds":0}`, `null`, "200", `null`, `{"status":200,"payload":null}`},
		{"the Azure CLI's defaults", `{"methodName":"m","payload":{},"responseTimeoutInSeconds":"30","connectTimeoutInSeconds":"0"}`, `{}`, "200", `1`, `{"status":200,"payload":1}`},
		{"a time limit of another age", `{"methodName":"m","timeoutInSeconds":0}`, ``, "200", `1`, `{"status":200,"payload":1}`},
		{"an answer that is not JSON", `{"methodName":"m"}`, ``, "200", `{'filename': 'a'}`, `{"status":200,"payload":{'filename': 'a'}}`},
		{"an answer of bytes", `{"methodName":"m"}`, ``, "500", "\xff\x00", "{\"status\":500,\"payload\":\xff\x00}"},
		{"Python's empty text", `{"methodName":"m","payload":"","responseTimeoutInSeconds":null}`, `""`, "200", `"done"`, `{"status":200,"payload":"done"}`},
		{"a status of the device's own", `{"methodName":"m","payload":[1],"responseTimeoutInSeconds":300,"connectTimeoutInSeconds":300}`, `[1]`, "501", `{}`, `{"status":501,"payload":{}}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d.T = t
			done := h.Begin(t.Context(), wiretest.Call{Method: "POST", Path: "/twins/dev1/modules/mod1/methods", Body: tt.body})
			p := wiretest.Receive[*packets.PublishPacket](d)
			if string(p.Payload) != tt.sent {
				t.Errorf("the device got %s, want %s", p.Payload, tt.sent)
			}
			d.Publish("$iothub/methods/res/"+tt.status+"/?$rid="+wiretest.RequestID(p), tt.payload)
			if got := (<-done).Want(t, 200, ""); got.Body != tt.want {
				t.Errorf("the caller got %s, want %s", got.Body, tt.want)
			}
		})
	}
	if got := h.Log.String(); strings.Count(got, "is not JSON") != 2 || !strings.Contains(got, "id=dev1/mod1 method=m") {
		t.Errorf("the log has not a line of each of the answers that are not JSON:\n%s", got)
	}
	done := h.Begin(t.Context(), wiretest.Call{Method: "POST", Path: "/twins/dev1/modules/mod1/methods", Body: `{"methodName":"m"}`})
	d.Publish("$iothub/methods/res/fine/?$rid="+wiretest.RequestID(wiretest.Receive[*packets.PublishPacket](d)), `1`)
	if got := (<-done).Want(t, 502, "").Header.Get("iothub-errorcode"); got != "InvalidResponseWhileProxying" {
		t.Errorf("iothub-errorcode is %s", got)
	}
	metrics := h.DoRaw(wiretest.Call{Method: "GET", Path: "/metrics", Token: "-"}).Body
	for _, want := range []string{`iotdm_hub_method_calls_total{status="200"} 9`, `iotdm_hub_method_calls_total{status="502"} 1`} {
		if !strings.Contains(metrics, want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
}

func TestACallerThatGoesEndsItsCall(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{Clock: clock.New()})
	d := wiretest.DialTLS(t, h.Hub)
	d.Connect(h.Device("dev1"))
	d.Subscribe(0, "$iothub/methods/POST/#")
	ctx, cancel := context.WithCancel(t.Context())
	h.Begin(ctx, wiretest.Call{Method: "POST", Path: "/twins/dev1/methods", Body: `{"methodName":"m","responseTimeoutInSeconds":300}`})
	wiretest.Receive[*packets.PublishPacket](d)
	ended := h.Log.Expect("status=499")
	cancel()
	select {
	case <-ended:
	case <-time.After(wiretest.Patience):
		t.Fatal("the hub still waits for the device")
	}
}

func TestConnectedDevicesShow(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{Clock: clock.New()})
	d := wiretest.DialTLS(t, h.Hub)
	d.Connect(h.Device("dev1"))
	for _, path := range []string{"/devices/dev1", "/twins/dev1"} {
		if got := h.Do(wiretest.Call{Method: "GET", Path: path}).Text(t, "connectionState"); got != "Connected" {
			t.Errorf("%s: connectionState is %s", path, got)
		}
	}
	h.Do(wiretest.Call{Method: "GET", Path: "/statistics/service"}).Want(t, 200, `{"connectedDeviceCount":1}`)
	// The metrics of a node count what is connected to it.
	if got := h.DoRaw(wiretest.Call{Method: "GET", Path: "/metrics", Token: "-"}).Body; !hubtest.Several() && !strings.Contains(got, "iotdm_hub_connected_devices 1") {
		t.Error("/metrics does not count the device")
	}
	h.Do(wiretest.Call{Method: "PUT", Path: "/devices/dev1", Body: `{"status":"disabled"}`, Header: map[string]string{"If-Match": "*"}}).Want(t, 200, "")
	d.WantClosed()
}

func TestDesiredPropertiesReachTheDeviceFromEveryRoute(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{Clock: clock.New()})
	d := wiretest.DialTLS(t, h.Hub)
	d.Connect(h.Device("dev1"))
	d.Subscribe(0, "$iothub/twin/PATCH/properties/desired/#")
	h.Do(wiretest.Call{Method: "PATCH", Path: "/twins/dev1", Body: `{"properties":{"desired":{"a":1,"b":null}}}`}).Want(t, 200, "")
	d.WantPublish("$iothub/twin/PATCH/properties/desired/?$version=2", `{"a":1,"b":null,"$version":2}`)
	h.Do(wiretest.Call{Method: "PUT", Path: "/twins/dev1", Body: `{"properties":{"desired":{"c":"<"}}}`}).Want(t, 200, "")
	d.WantPublish("$iothub/twin/PATCH/properties/desired/?$version=3", `{"a":null,"c":"<","$version":3}`)
	h.Do(wiretest.Call{Method: "POST", Path: "/devices", Body: `[{"id":"dev1","importMode":"updateTwin","properties":{"desired":{"c":2}}}]`}).Want(t, 200, "")
	d.WantPublish("$iothub/twin/PATCH/properties/desired/?$version=4", `{"c":2,"$version":4}`)
}
