package hub_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
)

// eventsOf returns the events of a query. Their slices are copies.
func eventsOf(t testing.TB, h *hub.Server, q hub.EventQuery) []hub.Event {
	t.Helper()
	var list []hub.Event
	err := h.Events(t.Context(), q, func(e hub.Event) error {
		e.Body = slices.Clone(e.Body)
		list = append(list, e)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func telemetryOf(t testing.TB, h *hub.Server, device string) []hub.Event {
	t.Helper()
	return eventsOf(t, h, hub.EventQuery{Device: device, Sources: []hub.EventSource{hub.SourceTelemetry}})
}

// dialTLSAt connects to a hub whose clock stands at now.
func dialTLSAt(t testing.TB, h *hubtest.Hub, now time.Time) *client {
	t.Helper()
	config := h.ClientTLS()
	config.ServerName = "localhost"
	config.Time = func() time.Time { return now }
	return dialTLSConfig(t, h, config)
}

// place leaves out where an event stands, which depends on what is around it.
var place = cmpopts.IgnoreFields(hub.Event{}, "Partition", "Sequence", "Offset")

func TestTelemetryIsStampedAndKept(t *testing.T) {
	now := time.Now().Round(0).UTC()
	h := hubtest.New(t, hubtest.WithOptions(hub.Options{Now: func() time.Time { return now }}))
	eachTransport(t, h, func(t *testing.T, dial func() *client) {
		id := hub.ID{Device: strings.ReplaceAll(t.Name(), "/", "-"), Module: "m"}
		module := h.Module(id.Device, id.Module)
		identity, err := h.Identity(id)
		if err != nil {
			t.Fatal(err)
		}
		d := dial()
		d.connect(module, func(p *packets.ConnectPacket) { p.Username += "&model-id=dtmi%3Acom%3Aexample%3AThermostat%3B1" })
		topic := "devices/" + id.Device + "/modules/m/messages/events/"
		d.publish(topic+"%24.mid=1&%24.ct=application%2Fjson&%24.on=alert&a=b%20c&empty=&null&"+
			"%24.cdid=spoofed&iothub-connection-device-id=spoofed&%24.exp=x", `{"t":21}`)
		d.publish(topic, "")
		want := []hub.Event{
			{
				Enqueued: now, Source: hub.SourceTelemetry, From: id, Generation: identity.GenerationID,
				AuthMethod: `{"scope":"module","type":"sas","issuer":"iothub"}`, Model: "dtmi:com:example:Thermostat;1",
				System:     []hub.Property{{Name: "message-id", Value: "1"}, {Name: "content-type", Value: "application/json"}, {Name: "iothub-outputname", Value: "alert"}},
				Properties: []hub.Property{{Name: "a", Value: "b c"}, {Name: "empty"}, {Name: "null", Null: true}, {Name: "iothub-connection-device-id", Value: "spoofed"}},
				Body:       []byte(`{"t":21}`),
			},
			{
				Enqueued: now, Source: hub.SourceTelemetry, From: id, Generation: identity.GenerationID,
				AuthMethod: `{"scope":"module","type":"sas","issuer":"iothub"}`, Model: "dtmi:com:example:Thermostat;1",
			},
		}
		got := telemetryOf(t, h.Server, id.Device)
		if diff := cmp.Diff(want, got, place, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("events (-want +got):\n%s", diff)
		}
		if got[0].Partition != got[1].Partition || got[0].Sequence >= got[1].Sequence || got[0].Offset >= got[1].Offset {
			t.Errorf("the events stand at %d/%d/%d and %d/%d/%d", got[0].Partition, got[0].Sequence, got[0].Offset, got[1].Partition, got[1].Sequence, got[1].Offset)
		}
	})
}

func TestTelemetryIsAcknowledgedInItsOrder(t *testing.T) {
	h := hubtest.New(t, hubtest.WithOptions(hub.Options{Data: t.TempDir()}))
	d := dialTLS(t, h)
	d.connect(h.Device("d1"))
	const n = 300
	var all []byte
	for i := range uint16(n) {
		topic, body, qos := "devices/d1/messages/events/", fmt.Sprint(i), byte(1)
		switch i % 10 {
		case 3:
			qos = 0
		case 7: // a twin request has its turn too
			topic, body = "$iothub/twin/PATCH/properties/reported/?", `{}`
		}
		p := publishPacket(i+1, qos, topic, body)
		var b strings.Builder
		if err := p.Write(&b); err != nil {
			t.Fatal(err)
		}
		all = append(all, b.String()...)
	}
	go d.Write(all)
	var want []string
	for i := range uint16(n) {
		if i%10 != 7 {
			want = append(want, fmt.Sprint(i))
		}
		if i%10 == 3 {
			continue
		}
		if ack := receive[*packets.PubackPacket](d); ack.MessageID != i+1 {
			t.Fatalf("PUBACK for %d, want %d", ack.MessageID, i+1)
		}
	}
	var got []string
	for _, e := range telemetryOf(t, h.Server, "d1") {
		got = append(got, string(e.Body))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestTelemetryThatIsTooLargeEndsTheConnection(t *testing.T) {
	h := hubtest.New(t)
	d := dialTLS(t, h)
	d.connect(h.Device("d1"))
	const topic = "devices/d1/messages/events/%24.mid=1&a=b"
	largest := strings.Repeat("x", 256<<10-3)
	d.publish(topic, largest)
	d.send(publishPacket(2, 1, topic, largest+"x"))
	d.wantClosed()
	if got := telemetryOf(t, h.Server, ""); len(got) != 1 || string(got[0].Body) != largest {
		t.Errorf("%d events, want the one that is not too large", len(got))
	}
}

func TestAWillIsTelemetry(t *testing.T) {
	h := hubtest.New(t)
	d := dialTLS(t, h)
	d.connect(h.Device("d1"), func(p *packets.ConnectPacket) {
		p.WillFlag, p.WillQos, p.WillTopic, p.WillMessage = true, 1, "devices/d1/messages/events/a=b", []byte("bye")
	})
	d.Close()
	next, stop := follow(t, h.Server, hub.EventQuery{Sources: []hub.EventSource{hub.SourceTelemetry}})
	defer stop()
	got := next()
	if diff := cmp.Diff([]hub.Property{{Name: "a", Value: "b"}, {Name: "iothub-MessageType", Value: "Will"}}, got.Properties); diff != "" || string(got.Body) != "bye" {
		t.Errorf("will %q with properties (-want +got):\n%s", got.Body, diff)
	}
}

// follow reads events one after the other as they come.
func follow(t testing.TB, h *hub.Server, q hub.EventQuery) (next func() hub.Event, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	events, ended := make(chan hub.Event), make(chan error, 1)
	q.Follow = true
	go func() {
		ended <- h.Events(ctx, q, func(e hub.Event) error {
			e.Body = slices.Clone(e.Body)
			select {
			case events <- e:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	next = func() hub.Event {
		t.Helper()
		select {
		case e := <-events:
			return e
		case err := <-ended:
			t.Fatalf("Events ended with %v", err)
		case <-time.After(patience):
			t.Fatal("no event comes")
		}
		panic("unreachable")
	}
	return next, func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Events ended with %v, want %v", err, context.Canceled)
		}
	}
}

func TestTheHubTellsOfWhatHappens(t *testing.T) {
	now := time.Date(2026, 3, 14, 9, 26, 53, 589_793_200, time.UTC)
	h := hubtest.New(t, hubtest.WithOptions(hub.Options{HostNames: []string{"contoso.azure-devices.net"}, Now: func() time.Time { return now }}))
	next, stop := follow(t, h.Server, hub.EventQuery{})
	defer stop()
	want := func(source hub.EventSource, id hub.ID, schema, operation, body string, by ...string) (sequence string) {
		t.Helper()
		e := next()
		properties := []hub.Property{
			{Name: "hubName", Value: "contoso"}, {Name: "deviceId", Value: id.Device},
			{Name: "operationTimestamp", Value: "2026-03-14T09:26:53.5897932Z"},
			{Name: "opType", Value: operation}, {Name: "iothub-message-schema", Value: schema},
		}
		if id.Module != "" {
			properties = append(properties, hub.Property{Name: "moduleId", Value: id.Module})
		}
		for _, who := range by {
			properties = append(properties, hub.Property{Name: "iotdm-changed-by", Value: who})
		}
		w := hub.Event{Enqueued: now, Source: source, From: id, Properties: properties, Body: []byte(body)}
		if body == "" {
			w.Body = e.Body
		}
		if diff := cmp.Diff(w, e, place, cmpopts.IgnoreFields(hub.Event{}, "System")); diff != "" {
			t.Errorf("%s (-want +got):\n%s\nbody %s", operation, diff, e.Body)
		}
		system := map[string]string{}
		for _, p := range e.System {
			system[p.Name] = p.Value
		}
		if system["correlation-id"] == "" {
			t.Errorf("%s has no correlation id", operation)
		}
		delete(system, "correlation-id")
		if diff := cmp.Diff(map[string]string{"content-type": "application/json", "content-encoding": "utf-8", "user-id": "contoso"}, system); diff != "" {
			t.Errorf("%s: system properties (-want +got):\n%s", operation, diff)
		}
		var doc struct {
			SequenceNumber string `json:"sequenceNumber"`
		}
		if err := json.Unmarshal(e.Body, &doc); err != nil {
			t.Errorf("%s: body %s: %v", operation, e.Body, err)
		}
		return doc.SequenceNumber
	}

	id, module := hub.ID{Device: "d1"}, hub.ID{Device: "d1", Module: "m1"}
	h.Module("d1", "m1")
	const lifecycle = "deviceLifecycleNotification"
	want(hub.SourceDeviceLifecycle, id, lifecycle, "createDeviceIdentity",
		`{"deviceId":"d1","etag":"AAAAAAAAAAE=","version":2,"properties":{`+
			`"desired":{"$metadata":{"$lastUpdated":"2026-03-14T09:26:53.5897932Z"},"$version":1},`+
			`"reported":{"$metadata":{"$lastUpdated":"2026-03-14T09:26:53.5897932Z"},"$version":1}}}`)
	want(hub.SourceDeviceLifecycle, module, lifecycle, "createDeviceIdentity",
		`{"deviceId":"d1","moduleId":"m1","etag":"AAAAAAAAAAE=","version":2,"properties":{`+
			`"desired":{"$metadata":{"$lastUpdated":"0001-01-01T00:00:00Z"},"$version":1},`+
			`"reported":{"$metadata":{"$lastUpdated":"0001-01-01T00:00:00Z"},"$version":1}}}`)

	d := dialTLSAt(t, h, now)
	d.connect(h.Device("d1"))
	const state = "deviceConnectionStateNotification"
	first := want(hub.SourceConnectionState, id, state, "deviceConnected", "")

	const change = "twinChangeNotification"
	d.publish("$iothub/twin/PATCH/properties/reported/?", `{"a":{"b":1},"gone":null}`)
	want(hub.SourceTwinChange, id, change, "updateTwin",
		`{"version":3,"properties":{"reported":{"a":{"b":1},"gone":null,"$metadata":{"$lastUpdated":"2026-03-14T09:26:53.5897932Z",`+
			`"a":{"$lastUpdated":"2026-03-14T09:26:53.5897932Z","b":{"$lastUpdated":"2026-03-14T09:26:53.5897932Z"}}},"$version":2}}}`, "device d1")
	patch := hub.TwinChange{Tags: json.RawMessage(`{"room":"1"}`), Desired: json.RawMessage(`{"x":1,"$version":7}`), By: "policy service"}
	if _, err := h.PatchTwin(id, patch, hub.Match{}); err != nil {
		t.Fatal(err)
	}
	want(hub.SourceTwinChange, id, change, "updateTwin",
		`{"version":4,"tags":{"room":"1"},"properties":{"desired":{"x":1,"$metadata":{"$lastUpdated":"2026-03-14T09:26:53.5897932Z","$lastUpdatedVersion":2,`+
			`"x":{"$lastUpdated":"2026-03-14T09:26:53.5897932Z","$lastUpdatedVersion":2}},"$version":2}}}`, "policy service")
	if _, err := h.PatchTwin(id, hub.TwinChange{Tags: json.RawMessage(`{"room":null}`)}, hub.Match{}); err != nil {
		t.Fatal(err)
	}
	want(hub.SourceTwinChange, id, change, "updateTwin", `{"version":5,"tags":{"room":null}}`)
	if _, err := h.ReplaceTwin(module, hub.TwinChange{Tags: json.RawMessage(`{"t":1}`), By: "principal p"}, hub.Match{}); err != nil {
		t.Fatal(err)
	}
	want(hub.SourceTwinChange, module, change, "replaceTwin",
		`{"deviceId":"d1","moduleId":"m1","etag":"AAAAAAAAAAI=","version":3,"tags":{"t":1},"properties":{`+
			`"desired":{"$metadata":{"$lastUpdated":"2026-03-14T09:26:53.5897932Z","$lastUpdatedVersion":2},"$version":2},`+
			`"reported":{"$metadata":{"$lastUpdated":"0001-01-01T00:00:00Z"},"$version":1}}}`, "principal p")

	d.disconnect()
	last := want(hub.SourceConnectionState, id, state, "deviceDisconnected", "")
	if len(first) != 64 || len(last) != 64 || last <= first {
		t.Errorf("sequence numbers %s and %s", first, last)
	}
	if err := h.DeleteIdentity(id, hub.Match{}); err != nil {
		t.Fatal(err)
	}
	want(hub.SourceDeviceLifecycle, id, lifecycle, "deleteDeviceIdentity", "")
}

func TestEventsAreKeptOfTheSourcesThatAreWanted(t *testing.T) {
	h := hubtest.New(t, hubtest.WithOptions(hub.Options{EventSources: []hub.EventSource{hub.SourceConnectionState}}))
	d := dialTLS(t, h)
	d.connect(h.Device("d1"))
	d.publish("$iothub/twin/PATCH/properties/reported/?", `{"a":1}`)
	d.publish("devices/d1/messages/events/", "1")
	d.publish("devices/d1/messages/events/", "2")
	var got []string
	for _, e := range eventsOf(t, h.Server, hub.EventQuery{}) {
		got = append(got, string(e.Source))
	}
	if diff := cmp.Diff([]string{"deviceConnectionStateEvents", "Telemetry", "Telemetry"}, got); diff != "" {
		t.Errorf("sources (-want +got):\n%s", diff)
	}
}

func TestEventsOverREST(t *testing.T) {
	h := startREST(t, hub.Options{})
	for _, device := range []string{"d1", "d2"} {
		d := dialTLSAt(t, h.Hub, restNow)
		d.connect(h.Device(device))
		d.publish("devices/"+device+"/messages/events/%24.mid=m-1&%24.ct=application%2Fjson%3Bcharset%3Dutf-8&a=b&n", `{"t": 21}`)
		d.publish("devices/"+device+"/messages/events/", "text")
		d.publish("devices/"+device+"/messages/events/", "\xff")
	}
	const path = "/iotdm/events?api-version=2021-04-12"
	get := func(query string) []string {
		t.Helper()
		a := h.do(call{method: "GET", path: path + query})
		if a.Status != 200 || a.Header.Get("Content-Type") != "application/x-ndjson; charset=utf-8" {
			t.Fatalf("GET %s: %d %v %s", query, a.Status, a.Header, a.Body)
		}
		return strings.Split(strings.TrimSuffix(a.Body, "\n"), "\n")
	}
	telemetry := get("&device=d2&source=Telemetry")
	if len(telemetry) != 3 {
		t.Fatalf("telemetry of d2:\n%s", strings.Join(telemetry, "\n"))
	}
	answer{200, nil, telemetry[0]}.want(t, 200, `{"event":{"origin":"d2","module":"","interface":"","component":"",`+
		`"properties":{"system":{"content_type":"application/json;charset=utf-8","message_id":"m-1"},"application":{"a":"b","n":null}},`+
		`"annotations":{"iothub-connection-auth-generation-id":"*","iothub-connection-auth-method":"{\"scope\":\"device\",\"type\":\"sas\",\"issuer\":\"iothub\"}",`+
		`"iothub-connection-device-id":"d2","iothub-enqueuedtime":1773480413589,"iothub-message-source":"Telemetry",`+
		`"x-opt-enqueued-time":1773480413589,"x-opt-offset":"*","x-opt-partition-id":"*","x-opt-sequence-number":*},`+
		`"payload":{"t":21}}}`)
	var payloads []string
	for _, line := range telemetry[1:] {
		_, payload, _ := strings.Cut(line, `,"payload":`)
		payloads = append(payloads, payload)
	}
	if diff := cmp.Diff([]string{`"text"}}`, `"/w==","payloadEncoding":"base64"}}`}, payloads); diff != "" {
		t.Errorf("payloads (-want +got):\n%s", diff)
	}
	all := get("")
	if len(all) != 2*5 {
		t.Errorf("%d events, want 10:\n%s", len(all), strings.Join(all, "\n"))
	}
	offset := answer{200, nil, all[4]}.text(t, "event.annotations.x-opt-offset")
	if diff := cmp.Diff(all[4:], get("&from="+offset)); diff != "" {
		t.Errorf("events from offset %s (-want +got):\n%s", offset, diff)
	}
	if diff := cmp.Diff(all, get("&from=2026-03-14T09:26:53Z")); diff != "" {
		t.Errorf("events since a moment ago (-want +got):\n%s", diff)
	}
	for query, want := range map[string]int{"&from=2026-03-15T00:00:00Z": 0, "&from=latest": 0, "&source=nothing": 0} {
		if a := h.do(call{method: "GET", path: path + query}); a.Status != 200 || len(a.Body) != want {
			t.Errorf("GET %s: %d %s, want nothing", query, a.Status, a.Body)
		}
	}
	h.do(call{method: "GET", path: path + "&from=yesterday"}).want(t, 400, "")
	h.do(call{method: "GET", path: path, token: h.token("registryReadWrite")}).want(t, 401, "")
	h.do(call{method: "GET", path: path, token: h.token("service")}).want(t, 200, "")
}

func TestFollowersSeeEventsAtOnceAndShutdownEndsThem(t *testing.T) {
	h := startREST(t, hub.Options{})
	d := dialTLSAt(t, h.Hub, restNow)
	d.connect(h.Device("d1"))
	req, err := http.NewRequest("GET", "https://"+h.HTTPSAddr+"/iotdm/events?api-version=2021-04-12&follow=true&from=latest&device=d1&source=Telemetry", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "localhost"
	req.Header.Set("Authorization", h.token("service"))
	resp, err := h.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for i := range 3 {
		body := fmt.Sprint("message ", i)
		d.publish("devices/d1/messages/events/", body)
		if !lines.Scan() || !strings.Contains(lines.Text(), body) {
			t.Fatalf("got %q, want %s; %v", lines.Text(), body, lines.Err())
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := h.Shutdown(ctx); err != nil {
		t.Errorf("Shutdown with a follower: %v", err)
	}
	for lines.Scan() { // the device's disconnection may be told
	}
}
