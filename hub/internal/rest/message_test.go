package rest_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
)

func TestSendMessagesOverREST(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	h.DeviceToken(hub.ID{Device: "d1"})
	const path = "/devices/d1/messages/deviceBound"
	h.Do(wiretest.Call{Method: "POST", Path: path, Body: "hello", Header: map[string]string{
		"IoTHub-MessageId": "m-1", "IoTHub-CorrelationId": "c-1", "IoTHub-Ack": "Full", "Content-Type": "text/plain", "Content-Encoding": "utf-8",
		"IoTHub-Expiry": "2026-03-14T09:36:53Z", "iothub-app-Color": "blau, ö",
	}}).Want(t, 204, "")
	h.Do(wiretest.Call{Method: "POST", Path: "/devices/d1/messages/devicebound/", Token: h.Token("service")}).Want(t, 204, "")
	if got := h.Do(wiretest.Call{Method: "GET", Path: "/devices/d1"}).Field(t, "cloudToDeviceMessageCount"); got != json.Number("2") {
		t.Errorf("cloudToDeviceMessageCount is %v, want 2", got)
	}
	if got := h.Do(wiretest.Call{Method: "GET", Path: "/twins/d1"}).Field(t, "cloudToDeviceMessageCount"); got != json.Number("2") {
		t.Errorf("cloudToDeviceMessageCount of the twin is %v, want 2", got)
	}

	d := wiretest.DialTLSAt(t, h.Hub, wiretest.Now)
	d.Connect(h.Device("d1"))
	d.Subscribe(1, "devices/d1/messages/devicebound/#")
	p := d.WantMessage("hello")
	if want := "devices/d1/messages/devicebound/%24.mid=m-1&%24.to=%2Fdevices%2Fd1%2Fmessages%2FdeviceBound&%24.cid=c-1&%24.ct=text%2Fplain&%24.ce=utf-8&%24.exp=2026-03-14T09%3A36%3A53.0000000Z&iothub-ack=full&color=blau%2C%20%C3%B6"; p.TopicName != want {
		t.Errorf("topic %s\nwant  %s", p.TopicName, want)
	}
	d.Acknowledge(p)
	d.Acknowledge(d.WantMessage(""))
	d.Settled()

	h.Do(wiretest.Call{Method: "POST", Path: path, Header: map[string]string{"IoTHub-Expiry": "soon"}}).
		WantError(t, 400, "ArgumentInvalid", "iothub-expiry must be a time such as 2026-01-02T03:04:05Z")
	h.Do(wiretest.Call{Method: "POST", Path: path, Header: map[string]string{"IoTHub-Ack": "yes"}}).Want(t, 400, "")
	h.Do(wiretest.Call{Method: "POST", Path: path, Body: strings.Repeat("x", 64<<10+1)}).Want(t, 413, "")
	h.Do(wiretest.Call{Method: "POST", Path: "/devices/none/messages/deviceBound"}).WantError(t, 404, "DeviceNotFound", "none")

	a := h.Do(wiretest.Call{Method: "GET", Path: "/messages/serviceBound/feedback"})
	a.Want(t, 200, `[{"originalMessageId":"m-1","enqueuedTimeUtc":"2026-03-14T09:26:53.5897932Z","statusCode":"Success","description":"Success","deviceId":"d1","deviceGenerationId":"*"}]`)
	lock := strings.Trim(a.Header.Get("ETag"), `"`)
	h.Do(wiretest.Call{Method: "GET", Path: "/messages/serviceBound/feedback"}).Want(t, 204, "")
	h.Do(wiretest.Call{Method: "POST", Path: "/messages/servicebound/feedback/" + lock + "/abandon"}).Want(t, 204, "")
	a = h.Do(wiretest.Call{Method: "GET", Path: "/messages/servicebound/feedback"}).Want(t, 200, a.Body)
	h.Do(wiretest.Call{Method: "DELETE", Path: "/messages/servicebound/feedback/" + lock}).WantError(t, 412, "DeviceMessageLockLost", "the lock of the message has ended")
	lock = strings.Trim(a.Header.Get("ETag"), `"`)
	h.Do(wiretest.Call{Method: "DELETE", Path: "/messages/servicebound/feedback/" + lock}).Want(t, 204, "")
}

func TestPurgeOverREST(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	h.DeviceToken(hub.ID{Device: "d1"})
	for range 50 {
		h.Do(wiretest.Call{Method: "POST", Path: "/devices/d1/messages/deviceBound", Body: "x"}).Want(t, 204, "")
	}
	h.Do(wiretest.Call{Method: "POST", Path: "/devices/d1/messages/deviceBound", Body: "x"}).WantError(t, 403, "DeviceMaximumQueueDepthExceeded",
		"C2D messages enqueued for the device exceeded the queue limit of 50, see more at http://aka.ms/iothub403004")
	h.Do(wiretest.Call{Method: "DELETE", Path: "/devices/d1/commands"}).Want(t, 200, `{"totalMessagesPurged":50,"deviceId":"d1","moduleId":null}`)
	h.Do(wiretest.Call{Method: "DELETE", Path: "/devices/d1/commands"}).Want(t, 200, `{"totalMessagesPurged":0,"deviceId":"d1","moduleId":null}`)
	h.Do(wiretest.Call{Method: "DELETE", Path: "/devices/none/commands"}).WantError(t, 404, "DeviceNotFound", "none")
}

func TestDevicesReceiveMessagesOverHTTPS(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	token := h.DeviceToken(hub.ID{Device: "d1"})
	const path = "/devices/d1/messages/deviceBound"
	receive := func() wiretest.Answer { return h.Do(wiretest.Call{Method: "GET", Path: path, Token: token}) }
	receive().Want(t, 204, "")
	wiretest.SendMessage(t, h.Node, "d1", hub.Message{
		MessageID: "m-1", ContentType: "text/plain", Ack: hub.AckPositive, Body: []byte("hello"),
		Properties: []hub.Property{{Name: "color", Value: "blue"}},
	})
	a := receive().Want(t, 200, "hello")
	etag := a.Header.Get("ETag")
	lock := strings.Trim(etag, `"`)
	if etag != `"`+lock+`"` {
		t.Errorf("ETag %s is not in quotes", etag)
	}
	header := map[string]string{}
	for name := range a.Header {
		if strings.HasPrefix(name, "Iothub-") || strings.HasPrefix(name, "Content") && name != "Content-Length" {
			header[name] = a.Header.Get(name)
		}
	}
	want := map[string]string{
		"Iothub-Messageid": "m-1", "Iothub-To": "/devices/d1/messages/deviceBound",
		"Iothub-Ack": "positive", "Iothub-Enqueuedtime": "03/14/2026 09:26:53 AM",
		"Iothub-Deliverycount": "0", "Iothub-Sequencenumber": "1", "Iothub-App-Color": "blue",
		"Content-Type": "application/octet-stream", "Contenttype": "text/plain",
	}
	if diff := cmp.Diff(want, header); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
	receive().Want(t, 204, "") // it is locked
	wiretest.SendMessage(t, h.Node, "d1", hub.Message{Body: []byte("bare"), Expires: wiretest.Now.Add(time.Minute)})
	bare := receive().Want(t, 200, "bare").Header
	for name, want := range map[string][]string{
		"Iothub-Expiry": {"03/14/2026 09:27:53 AM"}, "Iothub-Ack": nil, "Iothub-Messageid": nil, "Contenttype": nil, "Iothub-Userid": nil,
	} {
		if diff := cmp.Diff(want, bare.Values(name), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if err := h.CompleteMessage("d1", strings.Trim(bare.Get("ETag"), `"`)); err != nil {
		t.Fatal(err)
	}

	settle := func(method, suffix string) wiretest.Answer {
		return h.Do(wiretest.Call{Method: method, Path: path + "/" + lock + suffix, Token: token, Header: map[string]string{"If-Match": etag}})
	}
	settle("POST", "/abandon").Want(t, 204, "")
	settle("DELETE", "").WantError(t, 412, "DeviceMessageLockLost", "the lock of the message has ended")
	a = receive().Want(t, 200, "hello")
	if got := a.Header.Get("iothub-deliverycount"); got != "1" {
		t.Errorf("iothub-deliverycount is %s, want 1", got)
	}
	lock = strings.Trim(a.Header.Get("ETag"), `"`)
	settle("DELETE", "").Want(t, 204, "")
	for _, reject := range []string{"?api-version=2020-09-30&reject", "%3Freject=true?api-version=2020-09-30"} {
		wiretest.SendMessage(t, h.Node, "d1", hub.Message{MessageID: "m-2", Ack: hub.AckNegative})
		lock = strings.Trim(receive().Header.Get("ETag"), `"`)
		settle("DELETE", reject).Want(t, 204, "")
	}
	wiretest.WantPending(t, h.Node, "d1", 0)
	batch, _, err := h.ReceiveFeedback()
	if err != nil {
		t.Fatal(err)
	}
	var outcomes []string
	for _, f := range batch.Records {
		outcomes = append(outcomes, f.OriginalMessageID+" "+string(f.StatusCode))
	}
	if diff := cmp.Diff([]string{"m-1 Success", "m-2 Rejected", "m-2 Rejected"}, outcomes); diff != "" {
		t.Errorf("feedback (-want +got):\n%s", diff)
	}

	// A message that the device has in hand over HTTPS does not go over MQTT.
	wiretest.SendMessage(t, h.Node, "d1", wiretest.Message("1"))
	wiretest.SendMessage(t, h.Node, "d1", wiretest.Message("2"))
	receive().Want(t, 200, "1")
	d := wiretest.DialTLSAt(t, h.Hub, wiretest.Now)
	d.Connect(h.Device("d1"))
	d.Subscribe(1, "devices/d1/messages/devicebound/#")
	d.WantMessage("2")
	receive().Want(t, 204, "")
}

func TestDevicesSendTelemetryOverHTTPS(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	id := hub.ID{Device: "d1", Module: "m1"}
	token := h.DeviceToken(id)
	identity, err := h.Identity(id)
	if err != nil {
		t.Fatal(err)
	}
	const path = "/devices/d1/modules/m1/messages/events"
	h.Do(wiretest.Call{Method: "POST", Path: path, Token: token, Body: "\x00\xff", Header: map[string]string{
		"Content-Type": "application/octet-stream", "iothub-to": path, "IoTHub-MessageId": "m-1", "iothub-contenttype": "application/json",
		"iothub-app-temperatureAlert": "true", "iothub-correlationid": "", "iothub-creation-time-utc": "2026-03-14T09:26:53Z", "dt-subject": "c1", "X-Other": "ignored",
	}}).Want(t, 204, "")
	h.Do(wiretest.Call{Method: "POST", Path: path, Token: token, Header: map[string]string{"Content-Type": "application/vnd.microsoft.iothub.json"}, Body: `[
		{"body":"aGVsbG8=","properties":{"iothub-app-Alert":"1","iothub-messageid":"m-2","iothub-userid":""}},
		{"body":"hello","base64Encoded":false}]`}).Want(t, 204, "")
	stamped := hub.Event{
		Enqueued: wiretest.Now, Source: hub.SourceTelemetry, From: id, Generation: identity.GenerationID,
		AuthMethod: `{"scope":"module","type":"sas","issuer":"iothub"}`, Body: []byte("hello"),
	}
	first, second, third := stamped, stamped, stamped
	first.Body = []byte("\x00\xff")
	first.System = []hub.Property{
		{Name: "content-type", Value: "application/json"}, {Name: "dt-subject", Value: "c1"},
		{Name: "iothub-creation-time-utc", Value: "2026-03-14T09:26:53Z"}, {Name: "message-id", Value: "m-1"}, {Name: "to", Value: path},
	}
	first.Properties = []hub.Property{{Name: "temperaturealert", Value: "true"}}
	second.System = []hub.Property{{Name: "message-id", Value: "m-2"}}
	second.Properties = []hub.Property{{Name: "Alert", Value: "1"}}
	if diff := cmp.Diff([]hub.Event{first, second, third}, wiretest.Telemetry(t, h.Node, "d1"), wiretest.IgnorePlace); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}

	for name, tt := range map[string]struct {
		body   string
		batch  bool
		status int
	}{
		"a message that is too large":   {body: strings.Repeat("x", 256<<10+1), status: http.StatusRequestEntityTooLarge},
		"a batch that is too large":     {body: `[{"base64Encoded":false,"body":"` + strings.Repeat("x", 200<<10) + `"},{"base64Encoded":false,"body":"` + strings.Repeat("x", 200<<10) + `"}]`, batch: true, status: http.StatusRequestEntityTooLarge},
		"a batch that is not JSON":      {body: `[`, batch: true, status: http.StatusBadRequest},
		"a batch that is an object":     {body: `{}`, batch: true, status: http.StatusBadRequest},
		"a body that is not in base64":  {body: `[{"body":"*"}]`, batch: true, status: http.StatusBadRequest},
		"a property that is not a text": {body: `[{"body":"","properties":{"a":1}}]`, batch: true, status: http.StatusBadRequest},
	} {
		t.Run(name, func(t *testing.T) {
			c := wiretest.Call{Method: "POST", Path: path, Token: token, Body: tt.body}
			if tt.batch {
				c.Header = map[string]string{"Content-Type": "application/vnd.microsoft.iothub.json; charset=utf-8"}
			}
			h.Do(c).Want(t, tt.status, "")
		})
	}
	if got := len(wiretest.Telemetry(t, h.Node, "d1")); got != 3 {
		t.Errorf("%d events, want 3", got)
	}
}

// A message must arrive whatever a property's value holds.
func TestPropertiesThatHeadersCannotCarry(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	token := h.DeviceToken(hub.ID{Device: "d1"})
	wiretest.SendMessage(t, h.Node, "d1", hub.Message{Body: []byte("x"), Properties: []hub.Property{{Name: "a b", Value: "1"}, {Name: "c", Value: "line\r\nETag: \"forged\""}}})
	a := h.Do(wiretest.Call{Method: "GET", Path: "/devices/d1/messages/deviceBound", Token: token}).Want(t, 200, "x")
	if etag := a.Header.Values("ETag"); len(etag) != 1 || strings.Contains(etag[0], "forged") {
		t.Errorf("ETag %q", etag)
	}
}

// Whatever HTTP lets a header hold, a property is UTF-8.
func TestPropertiesInHeaders(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	own := h.DeviceToken(hub.ID{Device: "dev1"})
	for value, want := range map[string]int{
		"a-:.+%_#*?!(),=@;$'z": 204, `"quoted" \ {x} <y>`: 204, "a%2Fb": 204, "ä": 204, "\t": 204, "": 204, "\xe4": 400, "a\xc3\x28": 400,
	} {
		for _, header := range []string{"iothub-app-color", "iothub-correlationid"} {
			for path, token := range map[string]string{"/devices/dev1/messages/events": own, "/devices/dev1/messages/deviceBound": ""} {
				if got := h.Do(wiretest.Call{Method: "POST", Path: path, Token: token, Body: "x", Header: map[string]string{header: value}}); got.Status != want {
					t.Errorf("%s: %q to %s is %d %s, want %d", header, value, path, got.Status, got.Body, want)
				}
			}
		}
	}
	for id, want := range map[string]int{"a-:.+%_#*?!(),=@;$'z": 204, strings.Repeat("x", 128): 204, "a b": 400, "a/b": 400, "ä": 400, strings.Repeat("x", 129): 400} {
		h.Do(wiretest.Call{Method: "POST", Path: "/devices/dev1/messages/deviceBound", Body: "x", Header: map[string]string{"IoTHub-MessageId": id}}).Want(t, want, "")
	}
}
