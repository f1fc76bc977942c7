package hubamqp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/hubamqp"
	"github.com/iotdm/iotdm/mqttdevice"
	"github.com/iotdm/iotdm/sas"
)

// patience is how long a test waits for what has to happen.
const patience = 20 * time.Second

var transports = []hubamqp.Transport{hubamqp.TCP, hubamqp.WebSocket}

// within returns a context of the test that ends after patience.
func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// options are for a client of h with the key of a policy.
func options(h *hubtest.Hub, policy string) hubamqp.Options {
	return hubamqp.Options{ConnectionString: h.Policy(policy), Addr: h.AMQPSAddr, WebSocketAddr: h.HTTPSAddr, TLS: h.ClientTLS()}
}

// start returns a client, which is closed with the test.
func start(t testing.TB, opt hubamqp.Options) *hubamqp.Client {
	t.Helper()
	c, err := hubamqp.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// device connects a device, over MQTT, that hands its messages to the channel.
func device(t testing.TB, h *hubtest.Hub, id string) (*mqttdevice.Client, chan mqttdevice.CloudToDeviceMessage) {
	t.Helper()
	d, err := mqttdevice.New(mqttdevice.Options{ConnectionString: h.Device(id), Addr: h.MQTTSAddr, TLS: h.ClientTLS()})
	if err != nil {
		t.Fatal(err)
	}
	messages := make(chan mqttdevice.CloudToDeviceMessage, 100)
	d.HandleMessage(func(_ context.Context, m mqttdevice.CloudToDeviceMessage) error {
		messages <- m
		return nil
	})
	if err := d.Connect(within(t)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d, messages
}

// next returns what comes from a channel.
func next[T any](t testing.TB, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatalf("nothing comes within %v", patience)
		panic("unreachable")
	}
}

// A reading is one call of Events.
type reading struct {
	events chan hubamqp.Event
	ended  chan error
	stop   context.CancelFunc
}

// read reads events until the test ends, and returns once all partitions are being read, or that has failed.
func read(t testing.TB, c *hubamqp.Client, q hubamqp.EventQuery) *reading {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &reading{events: make(chan hubamqp.Event, 10000), ended: make(chan error, 1), stop: cancel}
	begun := make(chan []string, 1)
	q.Begun = func(partitions []string) { begun <- partitions }
	go func() {
		r.ended <- c.Events(ctx, q, func(e hubamqp.Event) error { r.events <- e; return nil })
		close(r.ended)
	}()
	t.Cleanup(func() { cancel(); <-r.ended })
	select {
	case <-begun:
	case err := <-r.ended:
		t.Fatalf("Events returned %v", err)
	case <-time.After(patience):
		t.Fatal("Events does not begin")
	}
	return r
}

// all returns what a query that ends reads.
func all(t testing.TB, c *hubamqp.Client, q hubamqp.EventQuery) []hubamqp.Event {
	t.Helper()
	var events []hubamqp.Event
	if err := c.Events(within(t), q, func(e hubamqp.Event) error { events = append(events, e); return nil }); err != nil {
		t.Fatalf("Events(%+v) returned %v", q, err)
	}
	return events
}

func bodies(events []hubamqp.Event) []string {
	var all []string
	for _, e := range events {
		all = append(all, string(e.Body))
	}
	return all
}

// send sends telemetry of a device.
func send(t testing.TB, d *mqttdevice.Client, bodies ...string) {
	t.Helper()
	for _, body := range bodies {
		if err := d.Send(within(t), mqttdevice.Message{Payload: []byte(body)}); err != nil {
			t.Fatal(err)
		}
	}
}

// A back end, end to end: a device sends, an event is read, a message answers, the device takes it, and feedback
// comes.
func TestABackEnd(t *testing.T) {
	for _, transport := range transports {
		t.Run(transport.String(), func(t *testing.T) {
			h := hubtest.New(t)
			opt := options(h, "service")
			opt.Transport = transport
			c := start(t, opt)
			d, messages := device(t, h, "dev-1")
			feedback := c.Feedback()
			defer feedback.Close()
			events := read(t, c, hubamqp.EventQuery{Latest: true, Follow: true})

			err := d.Send(within(t), mqttdevice.Message{ID: "e-1", CorrelationID: "c-1", ContentType: "application/json", ContentEncoding: "utf-8",
				Payload: []byte(`{"temperature":31}`), Properties: map[string]string{"alert": "true", "town": "Köln am Rhein"}})
			if err != nil {
				t.Fatal(err)
			}
			event := next(t, events.events)
			want := hubamqp.Event{DeviceID: "dev-1", Source: "Telemetry", MessageID: "e-1", CorrelationID: "c-1", ContentType: "application/json", ContentEncoding: "utf-8",
				Body: []byte(`{"temperature":31}`), Properties: map[string]any{"alert": "true", "town": "Köln am Rhein"}}
			if diff := cmp.Diff(want, event, cmpopts.IgnoreFields(hubamqp.Event{}, "Partition", "Offset", "Sequence", "Enqueued", "Annotations", "To")); diff != "" {
				t.Errorf("event (-want +got):\n%s", diff)
			}
			if since := time.Since(event.Enqueued); since < -time.Minute || since > time.Minute || event.Offset == "" || event.Partition == "" {
				t.Errorf("event enqueued %v ago at offset %q of partition %q", since, event.Offset, event.Partition)
			}

			answer := hubamqp.Message{Body: []byte("fan on"), MessageID: "m-1", CorrelationID: event.MessageID, UserID: "op", ContentType: "text/plain", ContentEncoding: "utf-8",
				Ack: hubamqp.AckFull, Expiry: time.Now().Add(time.Hour).Truncate(time.Millisecond).UTC(), Properties: map[string]string{"speed": "3", "why": "too hot; 31°"}}
			if err := c.Send(within(t), hubamqp.Target{DeviceID: "dev-1"}, answer); err != nil {
				t.Fatal(err)
			}
			m := next(t, messages)
			got := hubamqp.Message{Body: m.Payload, MessageID: m.ID, CorrelationID: m.CorrelationID, UserID: m.UserID, ContentType: m.ContentType, ContentEncoding: m.ContentEncoding,
				Ack: hubamqp.AckFull, Expiry: m.Expiry.UTC(), Properties: m.Properties}
			delete(got.Properties, "iothub-ack")
			if diff := cmp.Diff(answer, got); diff != "" {
				t.Errorf("message (-want +got):\n%s", diff)
			}

			batch, err := feedback.Receive(within(t))
			if err != nil {
				t.Fatal(err)
			}
			success := []hubamqp.Feedback{{OriginalMessageID: "m-1", StatusCode: "Success", Description: "Success", DeviceID: "dev-1"}}
			if diff := cmp.Diff(success, batch.Records, cmpopts.IgnoreFields(hubamqp.Feedback{}, "EnqueuedTime", "DeviceGenerationID")); diff != "" {
				t.Errorf("feedback (-want +got):\n%s", diff)
			}
			if batch.Records[0].EnqueuedTime.IsZero() || batch.Enqueued.IsZero() || batch.Records[0].DeviceGenerationID == "" {
				t.Errorf("feedback %+v, enqueued %v", batch.Records[0], batch.Enqueued)
			}
			if err := batch.Complete(within(t)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestSendRefused(t *testing.T) {
	h := hubtest.New(t)
	h.Device("dev-1")
	h.Device("full")
	for range 50 {
		if err := h.SendMessage("full", hub.Message{}); err != nil {
			t.Fatal(err)
		}
	}
	wrong := options(h, "service")
	wrong.ConnectionString.SharedAccessKey = sas.NewKey()
	unknown := options(h, "service")
	unknown.ConnectionString.SharedAccessKeyName = "nobody"
	expired := options(h, "service")
	expired.Now = func() time.Time { return time.Now().Add(-2 * time.Hour) }
	tests := []struct {
		name string
		opt  hubamqp.Options
		to   string
		body []byte
		want error
	}{
		{"unknown device", options(h, "service"), "dev-2", nil, hubamqp.ErrNotFound},
		{"full queue", options(h, "service"), "full", nil, hubamqp.ErrLimit},
		{"too large", options(h, "service"), "dev-1", make([]byte, 65<<10), hubamqp.ErrTooLarge},
		{"larger than the hub takes at all", options(h, "service"), "dev-1", make([]byte, 4<<20), hubamqp.ErrTooLarge},
		{"a policy without the right", options(h, "registryRead"), "dev-1", nil, hubamqp.ErrUnauthorized},
		{"wrong key", wrong, "dev-1", nil, hubamqp.ErrUnauthorized},
		{"unknown policy", unknown, "dev-1", nil, hubamqp.ErrUnauthorized},
		{"expired token", expired, "dev-1", nil, hubamqp.ErrUnauthorized},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := start(t, tt.opt)
			// Twice, because a refusal must not spoil the client.
			for range 2 {
				err := c.Send(within(t), hubamqp.Target{DeviceID: tt.to}, hubamqp.Message{Body: tt.body})
				if !errors.Is(err, tt.want) || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), string(tt.opt.ConnectionString.SharedAccessKey)) {
					t.Errorf("Send returned %v, want %v", err, tt.want)
				}
			}
			if tt.want == hubamqp.ErrUnauthorized {
				return
			}
			if err := c.Send(within(t), hubamqp.Target{DeviceID: "dev-1"}, hubamqp.Message{Body: []byte("hello")}); err != nil {
				t.Errorf("after a refusal: %v", err)
			}
		})
	}
}

// Ids may hold what means something in an address.
func TestSendToOddIDs(t *testing.T) {
	h := hubtest.New(t)
	c := start(t, options(h, "service"))
	for _, id := range []string{"a%2Fb", "a+b", "a%41", "#?!()", "x@y:z", "a=b,c*'$_-."} {
		h.Device(id)
		if err := c.Send(within(t), hubamqp.Target{DeviceID: id}, hubamqp.Message{Body: []byte(id)}); err != nil {
			t.Errorf("Send to %q: %v", id, err)
			continue
		}
		if m, ok, err := h.ReceiveMessage(id, 0); err != nil || !ok || string(m.Body) != id {
			t.Errorf("device %q has the message %q (%v, %v)", id, m.Body, ok, err)
		}
	}
}

func TestManySendAtOnce(t *testing.T) {
	h := hubtest.New(t)
	c := start(t, options(h, "service"))
	const devices, each = 20, 20
	var wg sync.WaitGroup
	for i := range devices {
		id := fmt.Sprintf("dev-%d", i)
		h.Device(id)
		wg.Go(func() {
			for n := range each {
				if err := c.Send(within(t), hubamqp.Target{DeviceID: id}, hubamqp.Message{MessageID: fmt.Sprint(n)}); err != nil {
					t.Errorf("message %d to %s: %v", n, id, err)
				}
			}
		})
	}
	wg.Wait()
	for i := range devices {
		id := fmt.Sprintf("dev-%d", i)
		for n := range each {
			m, ok, err := h.ReceiveMessage(id, 0)
			if err != nil || !ok || m.MessageID != fmt.Sprint(n) {
				t.Fatalf("message %d of %s is %q (%v, %v)", n, id, m.MessageID, ok, err)
			}
		}
	}
}

// A client that lost its connection makes another one for the next message.
func TestSendConnectsAgain(t *testing.T) {
	h := hubtest.New(t)
	h.Device("dev-1")
	cable := newCable(t, h.AMQPSAddr)
	opt := options(h, "service")
	opt.Addr, opt.Transport = cable.addr, hubamqp.TCP
	c := start(t, opt)
	for range 3 {
		if err := c.Send(within(t), hubamqp.Target{DeviceID: "dev-1"}, hubamqp.Message{}); err != nil && !errors.Is(err, hubamqp.ErrConnectionLost) {
			t.Fatal(err)
		}
		cable.cut()
	}
	cable.pull()
	for range 2 { // the first may be on the connection that has just been cut
		if err := c.Send(within(t), hubamqp.Target{DeviceID: "dev-1"}, hubamqp.Message{}); err == nil {
			t.Error("a message was sent without a cable")
		}
	}
}

func TestFeedbackIsGivenBack(t *testing.T) {
	h := hubtest.New(t)
	c := start(t, options(h, "service"))
	_, messages := device(t, h, "dev-1")
	if err := c.Send(within(t), hubamqp.Target{DeviceID: "dev-1"}, hubamqp.Message{MessageID: "m-1", Ack: hubamqp.AckFull}); err != nil {
		t.Fatal(err)
	}
	next(t, messages)
	receive := func(r *hubamqp.FeedbackReceiver) *hubamqp.FeedbackBatch {
		t.Helper()
		b, err := r.Receive(within(t))
		if err != nil {
			t.Fatal(err)
		}
		if len(b.Records) != 1 || b.Records[0].OriginalMessageID != "m-1" {
			t.Fatalf("feedback %+v, want that of m-1", b.Records)
		}
		return b
	}
	r := c.Feedback()
	if err := receive(r).Abandon(within(t)); err != nil {
		t.Fatal(err)
	}
	receive(r)
	r.Close() // with a batch that is not settled
	other := start(t, options(h, "service"))
	r = other.Feedback()
	defer r.Close()
	if err := receive(r).Reject(within(t)); err != nil {
		t.Fatal(err)
	}
}

func TestFeedbackRefused(t *testing.T) {
	h := hubtest.New(t)
	if _, err := start(t, options(h, "registryRead")).Feedback().Receive(within(t)); !errors.Is(err, hubamqp.ErrUnauthorized) {
		t.Errorf("Receive without the right returned %v, want %v", err, hubamqp.ErrUnauthorized)
	}
}

func TestFeedbackConnectsAgain(t *testing.T) {
	h := hubtest.New(t)
	cable := newCable(t, h.AMQPSAddr)
	opt := options(h, "service")
	opt.Addr, opt.Transport = cable.addr, hubamqp.TCP
	c := start(t, opt)
	r := c.Feedback()
	defer r.Close()
	got := make(chan string, 10)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		for {
			b, err := r.Receive(ctx)
			if err != nil {
				ended <- err
				return
			}
			for _, f := range b.Records {
				got <- f.OriginalMessageID
			}
			b.Complete(ctx)
		}
	}()
	defer func() { cancel(); <-ended }()
	_, messages := device(t, h, "dev-1")
	for _, id := range []string{"m-1", "m-2"} {
		if err := h.SendMessage("dev-1", hub.Message{MessageID: id, Ack: hub.AckFull}); err != nil {
			t.Fatal(err)
		}
		next(t, messages)
		for next(t, got) != id {
			// That on m-1 may come again, if the hub did not hear that it was completed.
		}
		cable.cut()
	}
}

func TestWhereEventsBegin(t *testing.T) {
	h := hubtest.New(t, hubtest.WithOptions(node.Options{EventPartitions: 1, ConsumerGroups: []string{"tests"}}))
	c := start(t, options(h, "service"))
	if got := all(t, c, hubamqp.EventQuery{}); got != nil {
		t.Errorf("a hub without events has %v", got)
	}
	d, _ := device(t, h, "dev-1")
	send(t, d, "1", "2", "3", "4")
	events := all(t, c, hubamqp.EventQuery{})
	if diff := cmp.Diff([]string{"1", "2", "3", "4"}, bodies(events)); diff != "" {
		t.Fatalf("all events (-want +got):\n%s", diff)
	}
	second := events[1]
	tests := []struct {
		name string
		q    hubamqp.EventQuery
		want []string
	}{
		{"latest", hubamqp.EventQuery{Latest: true}, nil},
		{"since the epoch", hubamqp.EventQuery{Since: time.Unix(0, 0)}, []string{"1", "2", "3", "4"}},
		{"since the future", hubamqp.EventQuery{Since: time.Now().Add(time.Hour)}, nil},
		{"behind an offset", hubamqp.EventQuery{Offsets: map[string]string{second.Partition: second.Offset}}, []string{"3", "4"}},
		{"behind the last one", hubamqp.EventQuery{Offsets: map[string]string{second.Partition: events[3].Offset}}, nil},
		{"another consumer group", hubamqp.EventQuery{ConsumerGroup: "tests"}, []string{"1", "2", "3", "4"}},
		{"a partition", hubamqp.EventQuery{Partitions: []string{second.Partition}}, []string{"1", "2", "3", "4"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, bodies(all(t, c, tt.q))); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		})
	}
	since := all(t, c, hubamqp.EventQuery{Since: second.Enqueued})
	if !slices.Contains(bodies(since), "2") || slices.ContainsFunc(since, func(e hubamqp.Event) bool { return e.Enqueued.Before(second.Enqueued) }) {
		t.Errorf("since %v: events %v", second.Enqueued, bodies(since))
	}
	latest := read(t, c, hubamqp.EventQuery{Latest: true, Follow: true})
	send(t, d, "5")
	if got := next(t, latest.events); string(got.Body) != "5" {
		t.Errorf("the next event is %q, want 5", got.Body)
	}
	earliest := read(t, c, hubamqp.EventQuery{Follow: true})
	send(t, d, "6")
	for _, want := range []string{"1", "2", "3", "4", "5", "6"} {
		if got := next(t, earliest.events); string(got.Body) != want {
			t.Errorf("event %q, want %s", got.Body, want)
		}
	}
}

func TestEventsOfManyPartitions(t *testing.T) {
	h := hubtest.New(t, hubtest.WithOptions(node.Options{EventPartitions: 4}))
	c := start(t, options(h, "service"))
	const devices, each = 8, 25
	want := map[string][]string{}
	for i := range devices {
		id := fmt.Sprintf("dev-%d", i)
		d, _ := device(t, h, id)
		for n := range each {
			want[id] = append(want[id], fmt.Sprint(n))
		}
		send(t, d, want[id]...)
	}
	got, partitions := map[string][]string{}, map[string]bool{}
	for _, e := range all(t, c, hubamqp.EventQuery{}) {
		got[e.DeviceID] = append(got[e.DeviceID], string(e.Body))
		partitions[e.Partition] = true
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events by device (-want +got):\n%s", diff)
	}
	if len(partitions) < 2 {
		t.Errorf("the events are in the partitions %v", partitions)
	}
}

func TestTheLastEvents(t *testing.T) {
	h := hubtest.New(t, hubtest.WithOptions(node.Options{EventPartitions: 4, EventHubSources: []hub.EventSource{hub.SourceTelemetry}}))
	c := start(t, options(h, "service"))
	rare, _ := device(t, h, "rare")
	send(t, rare, "1")
	send(t, rare, "2")
	var often *mqttdevice.Client
	for i := range 5 {
		often, _ = device(t, h, fmt.Sprint("often-", i))
		for n := range 39 {
			send(t, often, fmt.Sprint(n))
		}
		for range 3 { // events that are numbered, and that readers do not get
			if _, err := often.PatchReported(within(t), map[string]int{"n": 1}); err != nil {
				t.Fatal(err)
			}
		}
		send(t, often, "39")
	}
	bodies := func(events []hubamqp.Event) (list []string) {
		for _, e := range events {
			list = append(list, e.DeviceID+" "+string(e.Body))
		}
		return list
	}
	ofRare := func(e hubamqp.Event) bool { return e.DeviceID == "rare" }
	for _, tt := range []struct {
		name string
		q    hubamqp.EventQuery
		want []string
	}{
		{"of all", hubamqp.EventQuery{Last: 2}, []string{"often-4 38", "often-4 39"}},
		{"of some that are far back", hubamqp.EventQuery{Last: 1, Wants: ofRare}, []string{"rare 2"}},
		{"more than there are", hubamqp.EventQuery{Last: 50, Wants: ofRare}, []string{"rare 1", "rare 2"}},
		{"since a time to come", hubamqp.EventQuery{Last: 5, Since: time.Now().Add(time.Hour)}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, bodies(all(t, c, tt.q))); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		})
	}
	following := read(t, c, hubamqp.EventQuery{Last: 1, Wants: ofRare, Follow: true})
	if got := next(t, following.events); string(got.Body) != "2" {
		t.Errorf("the last event is %q, want 2", got.Body)
	}
	send(t, often, "unwanted")
	send(t, rare, "3")
	if got := next(t, following.events); string(got.Body) != "3" {
		t.Errorf("then comes %q, want 3", got.Body)
	}
}

func TestEventsRefused(t *testing.T) {
	h := hubtest.New(t)
	d, _ := device(t, h, "dev-1")
	send(t, d, "1")
	wrong := options(h, "service")
	wrong.ConnectionString.SharedAccessKey = sas.NewKey()
	elsewhere := hubamqp.Options{EventHub: h.EventHub(), Addr: h.AMQPSAddr, TLS: h.ClientTLS()}
	elsewhere.EventHub.EntityPath = "elsewhere"
	tests := []struct {
		name string
		opt  hubamqp.Options
		q    hubamqp.EventQuery
		want error
	}{
		{"wrong key", wrong, hubamqp.EventQuery{}, hubamqp.ErrUnauthorized},
		{"no right", options(h, "registryRead"), hubamqp.EventQuery{}, hubamqp.ErrUnauthorized},
		{"unknown consumer group", options(h, "service"), hubamqp.EventQuery{ConsumerGroup: "nobody"}, hubamqp.ErrNotFound},
		{"unknown event hub", elsewhere, hubamqp.EventQuery{}, hubamqp.ErrNotFound},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := start(t, tt.opt).Events(within(t), tt.q, func(hubamqp.Event) error { return nil })
			if !errors.Is(err, tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("Events returned %v, want %v", err, tt.want)
			}
		})
	}
	t.Run("unknown partition", func(t *testing.T) {
		err := start(t, options(h, "service")).Events(within(t), hubamqp.EventQuery{Partitions: []string{"77"}}, func(hubamqp.Event) error { return nil })
		if err == nil || !strings.Contains(err.Error(), `there is no partition "77"`) {
			t.Errorf("Events returned %v", err)
		}
	})
	t.Run("the caller's function", func(t *testing.T) {
		mine := errors.New("mine")
		if err := start(t, options(h, "service")).Events(within(t), hubamqp.EventQuery{}, func(hubamqp.Event) error { return mine }); err != mine {
			t.Errorf("Events returned %v, want %v", err, mine)
		}
	})
	t.Run("too many readers", func(t *testing.T) {
		c := start(t, options(h, "service"))
		for range 5 {
			read(t, c, hubamqp.EventQuery{Follow: true})
		}
		if err := c.Events(within(t), hubamqp.EventQuery{Follow: true}, func(hubamqp.Event) error { return nil }); !errors.Is(err, hubamqp.ErrLimit) {
			t.Errorf("the sixth reader: %v, want %v", err, hubamqp.ErrLimit)
		}
	})
}

func TestEventHubConnectionString(t *testing.T) {
	t.Run("TLS", func(t *testing.T) {
		h := hubtest.New(t)
		d, _ := device(t, h, "dev-1")
		send(t, d, "1")
		for _, transport := range transports {
			c := start(t, hubamqp.Options{EventHub: h.EventHub(), Transport: transport, Addr: h.AMQPSAddr, WebSocketAddr: h.HTTPSAddr, TLS: h.ClientTLS()})
			if got := bodies(all(t, c, hubamqp.EventQuery{})); len(got) != 1 {
				t.Errorf("over %v: events %v, want one", transport, got)
			}
			if err := c.Send(within(t), hubamqp.Target{DeviceID: "dev-1"}, hubamqp.Message{}); err == nil || !strings.Contains(err.Error(), "event hub") {
				t.Errorf("Send returned %v", err)
			}
		}
	})
	t.Run("emulator", func(t *testing.T) {
		h := hubtest.New(t, hubtest.WithAMQPAddrs("127.0.0.1:0", "127.0.0.1:0"))
		d, _ := device(t, h, "dev-1")
		send(t, d, "1")
		c := start(t, hubamqp.Options{EventHub: h.EventHub()})
		if got := bodies(all(t, c, hubamqp.EventQuery{})); len(got) != 1 {
			t.Errorf("events %v, want one", got)
		}
	})
}

// Whatever happens to the connection, each event is read once, and in order.
func TestEventsThroughBrokenConnections(t *testing.T) {
	h := hubtest.New(t, hubtest.WithOptions(node.Options{EventPartitions: 2}))
	cable := newCable(t, h.AMQPSAddr)
	opt := options(h, "service")
	opt.Addr, opt.Transport = cable.addr, hubamqp.TCP
	r := read(t, start(t, opt), hubamqp.EventQuery{Latest: true, Follow: true})
	const rounds, each = 4, 200
	a, _ := device(t, h, "dev-1")
	b, _ := device(t, h, "dev-2")
	seen := map[string][]string{}
	see := func() {
		e := next(t, r.events)
		seen[e.DeviceID] = append(seen[e.DeviceID], string(e.Body))
	}
	var want []string
	for round := range rounds {
		var some []string
		for n := range each {
			some = append(some, fmt.Sprint(round*each+n))
		}
		var wg sync.WaitGroup
		wg.Go(func() { send(t, a, some...) })
		wg.Go(func() { send(t, b, some...) })
		if round < rounds-1 {
			see() // some are on their way
			cable.cut()
		}
		wg.Wait()
		want = append(want, some...)
	}
	for len(seen["dev-1"])+len(seen["dev-2"]) < 2*len(want) {
		see()
	}
	if diff := cmp.Diff(map[string][]string{"dev-1": want, "dev-2": want}, seen); diff != "" {
		t.Errorf("events by device (-want +got):\n%s", diff)
	}
}

func TestEventsOfAHubThatStartsAgain(t *testing.T) {
	folder := t.TempDir()
	amqps, https := "127.0.0.1:0", "127.0.0.1:0"
	var r *reading
	for run, body := range []string{"before", "after"} {
		t.Run(body, func(sub *testing.T) {
			h := hubtest.New(sub, hubtest.WithOptions(node.Options{Storage: node.Folder(folder)}), hubtest.WithAMQPAddrs(amqps, ""), hubtest.WithAddrs("127.0.0.1:0", https))
			if run == 0 {
				amqps, https = h.AMQPSAddr, h.HTTPSAddr
				r = read(t, start(t, options(h, "service")), hubamqp.EventQuery{Latest: true, Follow: true})
			}
			d, _ := device(sub, h, "dev-1")
			send(sub, d, body)
			if got := next(sub, r.events); string(got.Body) != body {
				sub.Errorf("event %q, want %q", got.Body, body)
			}
		})
	}
}

// A cable is the way to an address, which can be cut.
type cable struct {
	addr string
	to   string
	l    net.Listener

	wg    sync.WaitGroup
	mu    sync.Mutex
	conns []net.Conn
	out   bool
}

func newCable(t testing.TB, to string) *cable {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cable{addr: l.Addr().String(), to: to, l: l}
	c.wg.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			c.wg.Go(func() { c.carry(near) })
		}
	})
	t.Cleanup(func() { c.pull(); c.wg.Wait() })
	return c
}

func (c *cable) carry(near net.Conn) {
	defer near.Close()
	far, err := net.Dial("tcp", c.to)
	if err != nil {
		return
	}
	defer far.Close()
	c.mu.Lock()
	c.conns = append(c.conns, near, far)
	out := c.out
	c.mu.Unlock()
	if out {
		return
	}
	c.wg.Go(func() { io.Copy(far, near); far.Close() })
	io.Copy(near, far)
}

// cut ends all connections; others may be made.
func (c *cable) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		conn.Close()
	}
	c.conns = nil
}

// pull is cut without others.
func (c *cable) pull() {
	c.mu.Lock()
	c.out = true
	c.mu.Unlock()
	c.l.Close()
	c.cut()
}

// A hearing is a logger of which a test hears lines.
type hearing struct {
	slog.Handler
	lines chan string
}

func hear() (*slog.Logger, *hearing) {
	h := &hearing{slog.DiscardHandler, make(chan string, 1000)}
	return slog.New(h), h
}

func (h *hearing) Enabled(context.Context, slog.Level) bool { return true }

func (h *hearing) Handle(_ context.Context, r slog.Record) error {
	line := r.Message
	r.Attrs(func(a slog.Attr) bool { line += " " + a.String(); return true })
	select {
	case h.lines <- line:
	default:
	}
	return nil
}

// await waits for a line that begins with text.
func (h *hearing) await(t testing.TB, text string) string {
	t.Helper()
	for {
		if line := next(t, h.lines); strings.HasPrefix(line, text) {
			return line
		}
	}
}

func TestTheTokenIsRenewed(t *testing.T) {
	h := hubtest.New(t)
	h.Device("dev-1")
	opt := options(h, "service")
	opt.TokenLife = 500 * time.Millisecond
	var log *hearing
	opt.Logger, log = hear()
	c := start(t, opt)
	if err := c.Send(within(t), hubamqp.Target{DeviceID: "dev-1"}, hubamqp.Message{}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		log.await(t, "renewing the token")
	}
	if err := c.Send(within(t), hubamqp.Target{DeviceID: "dev-1"}, hubamqp.Message{}); err != nil {
		t.Error(err)
	}
}

func TestAReadyMadeToken(t *testing.T) {
	h := hubtest.New(t)
	d, _ := device(t, h, "dev-1")
	send(t, d, "1")
	opt := options(h, "service")
	cs := opt.ConnectionString
	token, err := sas.Sign(h.HostName, cs.SharedAccessKeyName, cs.SharedAccessKey, time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	opt.ConnectionString = sas.ConnectionString{HostName: cs.HostName, SharedAccessSignature: sas.Secret(token)}
	c := start(t, opt)
	if err := c.Send(within(t), hubamqp.Target{DeviceID: "dev-1"}, hubamqp.Message{}); err != nil {
		t.Error(err)
	}
	if got := all(t, c, hubamqp.EventQuery{}); len(got) != 1 {
		t.Errorf("events %v, want one", bodies(got))
	}
}

func TestAutoTakesWebSocket(t *testing.T) {
	h := hubtest.New(t)
	web := newCable(t, h.HTTPSAddr) // it listens, and speaks HTTP
	for name, addr := range map[string]string{"the port is shut": "127.0.0.1:1", "something else listens": web.addr} {
		t.Run(name, func(t *testing.T) {
			opt := options(h, "service")
			opt.Addr = addr
			got, err := start(t, opt).Check(within(t))
			if err != nil || got.Transport != hubamqp.WebSocket || got.Addr != h.HTTPSAddr || got.Instead == nil {
				t.Errorf("Check returned %+v, %v; want WebSocket, and why", got, err)
			}
		})
	}
	got, err := start(t, options(h, "service")).Check(within(t))
	if want := (hubamqp.Connection{Transport: hubamqp.TCP, Addr: h.AMQPSAddr}); err != nil || got != want {
		t.Errorf("Check returned %+v, %v; want %+v", got, err, want)
	}
}

func TestClose(t *testing.T) {
	h := hubtest.New(t)
	c := start(t, options(h, "service"))
	r := read(t, c, hubamqp.EventQuery{Follow: true})
	feedback := c.Feedback()
	received := make(chan error, 1)
	go func() {
		_, err := feedback.Receive(t.Context())
		received <- err
	}()
	if _, err := c.Check(within(t)); err != nil {
		t.Fatal(err)
	}
	c.Close()
	c.Close()
	for what, ended := range map[string]chan error{"Events": r.ended, "Receive": received} {
		if err := next(t, ended); !errors.Is(err, hubamqp.ErrClosed) {
			t.Errorf("%s returned %v, want %v", what, err, hubamqp.ErrClosed)
		}
	}
	if err := c.Send(within(t), hubamqp.Target{DeviceID: "d"}, hubamqp.Message{}); !errors.Is(err, hubamqp.ErrClosed) {
		t.Errorf("Send returned %v, want %v", err, hubamqp.ErrClosed)
	}
}

func TestEventsEndWithTheirContext(t *testing.T) {
	h := hubtest.New(t)
	r := read(t, start(t, options(h, "service")), hubamqp.EventQuery{Follow: true})
	began := time.Now()
	r.stop()
	if err := next(t, r.ended); !errors.Is(err, context.Canceled) {
		t.Errorf("Events returned %v, want %v", err, context.Canceled)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("Events ended after %v", took)
	}
}
