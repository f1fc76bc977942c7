package hubamqp_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/hubamqp"
	"github.com/iotdm/iotdm/mqttdevice"
	"github.com/iotdm/iotdm/sas"
)

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
