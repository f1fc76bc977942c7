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
	"github.com/iotdm/iotdm/hub/clock"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
)

func TestTelemetryIsStampedAndKept(t *testing.T) {
	now := time.Now().Round(0).UTC()
	h := hubtest.New(t, hubtest.WithOptions(node.Options{Clock: clock.Stopped(now)}))
	wiretest.EachTransport(t, h, func(t *testing.T, dial func() *wiretest.Client) {
		id := hub.ID{Device: strings.ReplaceAll(t.Name(), "/", "-"), Module: "m"}
		module := h.Module(id.Device, id.Module)
		identity, err := h.Identity(id)
		if err != nil {
			t.Fatal(err)
		}
		d := dial()
		d.Connect(module, func(p *packets.ConnectPacket) { p.Username += "&model-id=dtmi%3Acom%3Aexample%3AThermostat%3B1" })
		topic := "devices/" + id.Device + "/modules/m/messages/events/"
		d.Publish(topic+"%24.mid=1&%24.ct=application%2Fjson&%24.on=alert&a=b%20c&empty=&null&"+
			"%24.cdid=spoofed&iothub-connection-device-id=spoofed&%24.exp=x", `{"t":21}`)
		d.Publish(topic, "")
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
		got := wiretest.Telemetry(t, h.Node, id.Device)
		if diff := cmp.Diff(want, got, wiretest.IgnorePlace, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("events (-want +got):\n%s", diff)
		}
		if got[0].Partition != got[1].Partition || got[0].Sequence >= got[1].Sequence || got[0].Offset >= got[1].Offset {
			t.Errorf("the events stand at %d/%d/%d and %d/%d/%d", got[0].Partition, got[0].Sequence, got[0].Offset, got[1].Partition, got[1].Sequence, got[1].Offset)
		}
	})
}

func TestTelemetryIsAcknowledgedInItsOrder(t *testing.T) {
	h := hubtest.New(t, hubtest.WithOptions(node.Options{Storage: node.Folder(t.TempDir())}))
	d := wiretest.DialTLS(t, h)
	d.Connect(h.Device("d1"))
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
		p := wiretest.PublishPacket(i+1, qos, topic, body)
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
		if ack := wiretest.Receive[*packets.PubackPacket](d); ack.MessageID != i+1 {
			t.Fatalf("PUBACK for %d, want %d", ack.MessageID, i+1)
		}
	}
	var got []string
	for _, e := range wiretest.Telemetry(t, h.Node, "d1") {
		got = append(got, string(e.Body))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestTelemetryThatIsTooLargeEndsTheConnection(t *testing.T) {
	h := hubtest.New(t)
	d := wiretest.DialTLS(t, h)
	d.Connect(h.Device("d1"))
	const topic = "devices/d1/messages/events/%24.mid=1&a=b"
	largest := strings.Repeat("x", 256<<10-3)
	d.Publish(topic, largest)
	d.Send(wiretest.PublishPacket(2, 1, topic, largest+"x"))
	d.WantClosed()
	if got := wiretest.Telemetry(t, h.Node, ""); len(got) != 1 || string(got[0].Body) != largest {
		t.Errorf("%d events, want the one that is not too large", len(got))
	}
}

func TestAWillIsTelemetry(t *testing.T) {
	h := hubtest.New(t)
	d := wiretest.DialTLS(t, h)
	d.Connect(h.Device("d1"), func(p *packets.ConnectPacket) {
		p.WillFlag, p.WillQos, p.WillTopic, p.WillMessage = true, 1, "devices/d1/messages/events/a=b", []byte("bye")
	})
	d.Close()
	next, stop := follow(t, h.Node, hub.EventQuery{Sources: []hub.EventSource{hub.SourceTelemetry}})
	defer stop()
	got := next()
	if diff := cmp.Diff([]hub.Property{{Name: "a", Value: "b"}, {Name: "iothub-MessageType", Value: "Will"}}, got.Properties); diff != "" || string(got.Body) != "bye" {
		t.Errorf("will %q with properties (-want +got):\n%s", got.Body, diff)
	}
}

// follow reads events one after the other as they come.
func follow(t testing.TB, h *node.Node, q hub.EventQuery) (next func() hub.Event, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	events, ended := make(chan hub.Event), make(chan error, 1)
	q.Follow = true
	go func() {
		for e, err := range h.Events(ctx, q) {
			if err != nil {
				ended <- err
				return
			}
			e.Body = slices.Clone(e.Body)
			select {
			case events <- e:
			case <-ctx.Done():
			}
		}
	}()
	next = func() hub.Event {
		t.Helper()
		select {
		case e := <-events:
			return e
		case err := <-ended:
			t.Fatalf("Events ended with %v", err)
		case <-time.After(wiretest.Patience):
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
	h := hubtest.New(t, hubtest.WithOptions(node.Options{HostNames: []string{"contoso.azure-devices.net"}, Clock: clock.Stopped(now)}))
	next, stop := follow(t, h.Node, hub.EventQuery{})
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
		if diff := cmp.Diff(w, e, wiretest.IgnorePlace, cmpopts.IgnoreFields(hub.Event{}, "System")); diff != "" {
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

	d := wiretest.DialTLSAt(t, h, now)
	d.Connect(h.Device("d1"))
	const state = "deviceConnectionStateNotification"
	first := want(hub.SourceConnectionState, id, state, "deviceConnected", "")

	const change = "twinChangeNotification"
	d.Publish("$iothub/twin/PATCH/properties/reported/?", `{"a":{"b":1},"gone":null}`)
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
	for _, body := range []string{
		`{"version":6,"properties":{"desired":{"x":null,"$metadata":{"$lastUpdated":"2026-03-14T09:26:53.5897932Z","$lastUpdatedVersion":3},"$version":3}}}`,
		`{"version":7,"properties":{"desired":{"$metadata":{},"$version":4}}}`, // there was nothing to clear
	} {
		if _, err := h.PatchTwin(id, hub.TwinChange{ClearDesired: true}, hub.Match{}); err != nil {
			t.Fatal(err)
		}
		want(hub.SourceTwinChange, id, change, "updateTwin", body)
	}
	if _, err := h.ReplaceTwin(module, hub.TwinChange{Tags: json.RawMessage(`{"t":1}`), By: "principal p"}, hub.Match{}); err != nil {
		t.Fatal(err)
	}
	want(hub.SourceTwinChange, module, change, "replaceTwin",
		`{"deviceId":"d1","moduleId":"m1","etag":"AAAAAAAAAAI=","version":3,"tags":{"t":1},"properties":{`+
			`"desired":{"$metadata":{"$lastUpdated":"2026-03-14T09:26:53.5897932Z","$lastUpdatedVersion":2},"$version":2},`+
			`"reported":{"$metadata":{"$lastUpdated":"0001-01-01T00:00:00Z"},"$version":1}}}`, "principal p")

	d.Disconnect()
	last := want(hub.SourceConnectionState, id, state, "deviceDisconnected", "")
	if len(first) != 64 || len(last) != 64 || last <= first {
		t.Errorf("sequence numbers %s and %s", first, last)
	}
	if err := h.DeleteIdentity(id, hub.Match{}); err != nil {
		t.Fatal(err)
	}
	want(hub.SourceDeviceLifecycle, module, lifecycle, "deleteDeviceIdentity", "") // with its device, and before it
	want(hub.SourceDeviceLifecycle, id, lifecycle, "deleteDeviceIdentity", "")
}

func TestEventsAreKeptOfTheSourcesThatAreWanted(t *testing.T) {
	h := hubtest.New(t, hubtest.WithOptions(node.Options{EventSources: []hub.EventSource{hub.SourceConnectionState}}))
	d := wiretest.DialTLS(t, h)
	d.Connect(h.Device("d1"))
	d.Publish("$iothub/twin/PATCH/properties/reported/?", `{"a":1}`)
	d.Publish("devices/d1/messages/events/", "1")
	d.Publish("devices/d1/messages/events/", "2")
	var got []string
	for _, e := range wiretest.Events(t, h.Node, hub.EventQuery{}) {
		got = append(got, string(e.Source))
	}
	want := []string{"deviceConnectionStateEvents", "Telemetry", "Telemetry"}
	if hubtest.Several() { // telemetry may overtake the hub's own events
		slices.Sort(want)
		slices.Sort(got)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("sources (-want +got):\n%s", diff)
	}
}

func TestEventsOverREST(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	for _, device := range []string{"d1", "d2"} {
		d := wiretest.DialTLSAt(t, h.Hub, wiretest.Now)
		d.Connect(h.Device(device))
		d.Publish("devices/"+device+"/messages/events/%24.mid=m-1&%24.ct=application%2Fjson%3Bcharset%3Dutf-8&a=b&n", `{"t": 21}`)
		d.Publish("devices/"+device+"/messages/events/", "text")
		d.Publish("devices/"+device+"/messages/events/", "\xff")
	}
	const path = "/iotdm/events?api-version=2021-04-12"
	get := func(query string) []string {
		t.Helper()
		a := h.Do(wiretest.Call{Method: "GET", Path: path + query})
		if a.Status != 200 || a.Header.Get("Content-Type") != "application/x-ndjson; charset=utf-8" {
			t.Fatalf("GET %s: %d %v %s", query, a.Status, a.Header, a.Body)
		}
		return strings.Split(strings.TrimSuffix(a.Body, "\n"), "\n")
	}
	telemetry := get("&device=d2&source=Telemetry")
	if len(telemetry) != 3 {
		t.Fatalf("telemetry of d2:\n%s", strings.Join(telemetry, "\n"))
	}
	enqueued := "1773480413589"
	if hubtest.Several() {
		enqueued = "*" // by NATS
	}
	wiretest.Answer{Status: 200, Body: telemetry[0]}.Want(t, 200, `{"event":{"origin":"d2","module":"","interface":"","component":"",`+
		`"properties":{"system":{"content_type":"application/json;charset=utf-8","message_id":"m-1"},"application":{"a":"b","n":null}},`+
		`"annotations":{"iothub-connection-auth-generation-id":"*","iothub-connection-auth-method":"{\"scope\":\"device\",\"type\":\"sas\",\"issuer\":\"iothub\"}",`+
		`"iothub-connection-device-id":"d2","iothub-enqueuedtime":`+enqueued+`,"iothub-message-source":"Telemetry",`+
		`"x-opt-enqueued-time":`+enqueued+`,"x-opt-offset":"*","x-opt-partition-id":"*","x-opt-sequence-number":*},`+
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
	offset := wiretest.Answer{Status: 200, Body: all[4]}.Text(t, "event.annotations.x-opt-offset")
	if diff := cmp.Diff(all[4:], get("&from="+offset)); diff != "" {
		t.Errorf("events from offset %s (-want +got):\n%s", offset, diff)
	}
	if diff := cmp.Diff(all, get("&from=2026-03-14T09:26:53Z")); diff != "" {
		t.Errorf("events since a moment ago (-want +got):\n%s", diff)
	}
	for query, want := range map[string]int{"&from=2126-03-14T00:00:00Z": 0, "&from=latest": 0, "&source=nothing": 0} {
		if a := h.Do(wiretest.Call{Method: "GET", Path: path + query}); a.Status != 200 || len(a.Body) != want {
			t.Errorf("GET %s: %d %s, want nothing", query, a.Status, a.Body)
		}
	}
	h.Do(wiretest.Call{Method: "GET", Path: path + "&from=yesterday"}).Want(t, 400, "")
	h.Do(wiretest.Call{Method: "GET", Path: path, Token: h.Token("registryReadWrite")}).Want(t, 401, "")
	h.Do(wiretest.Call{Method: "GET", Path: path, Token: h.Token("service")}).Want(t, 200, "")
}

func TestFollowersSeeEventsAtOnceAndShutdownEndsThem(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	d := wiretest.DialTLSAt(t, h.Hub, wiretest.Now)
	d.Connect(h.Device("d1"))
	req, err := http.NewRequest("GET", "https://"+h.HTTPSAddr+"/iotdm/events?api-version=2021-04-12&follow=true&from=latest&device=d1&source=Telemetry", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "localhost"
	req.Header.Set("Authorization", h.Token("service"))
	resp, err := h.Client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for i := range 3 {
		body := fmt.Sprint("message ", i)
		d.Publish("devices/d1/messages/events/", body)
		if !lines.Scan() || !strings.Contains(lines.Text(), body) {
			t.Fatalf("got %q, want %s; %v", lines.Text(), body, lines.Err())
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), wiretest.Patience)
	defer cancel()
	if err := h.At(h.HTTPSAddr).Shutdown(ctx); err != nil {
		t.Errorf("Shutdown with a follower: %v", err)
	}
	for lines.Scan() { // the device's disconnection may be told
	}
}

func TestTheLastEvents(t *testing.T) {
	n := wiretest.NewNode(t, node.Options{})
	peers := make(map[string]hub.Peer)
	for _, id := range []string{"rare", "often"} {
		peers[id] = hub.Peer{ID: wiretest.Create(t, n, hub.ID{Device: id}, hub.IdentitySpec{}).ID}
	}
	send := func(device, body string) {
		if err := n.ReceiveTelemetry(peers[device], hub.Telemetry{Body: []byte(body)}, func(error) {}); err != nil {
			t.Fatal(err)
		}
	}
	send("rare", "1")
	send("rare", "2")
	for i := range 40 { // far more than is looked at first
		send("often", fmt.Sprintf("%0100000d", i))
	}
	for _, tt := range []struct {
		name string
		q    hub.EventQuery
		want []string
	}{
		{"of all", hub.EventQuery{Last: 2, Sources: []hub.EventSource{hub.SourceTelemetry}}, []string{"38", "39"}},
		{"of one that has sent nothing for long", hub.EventQuery{Last: 1, Device: "rare"}, []string{"2"}},
		{"more than there are", hub.EventQuery{Last: 9, Device: "rare", Sources: []hub.EventSource{hub.SourceTelemetry}}, []string{"1", "2"}},
		{"of those since a time", hub.EventQuery{Last: 1, Since: time.Now().Add(time.Hour)}, nil},
		{"of nobody", hub.EventQuery{Last: 1, Device: "nobody"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, e := range wiretest.Events(t, n, tt.q) {
				got = append(got, strings.TrimLeft(string(e.Body), "0"))
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("the last events are %q, want %q", got, tt.want)
			}
		})
	}
}
