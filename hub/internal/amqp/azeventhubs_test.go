package amqp_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/amqp"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/sas"
)

// A backEnd reads events of a hub by the Go client of Event Hubs.
type backEnd struct {
	*hubtest.Hub
	t      testing.TB
	plain  bool    // as the client of an emulator, without TLS
	policy string  // whose key it has
	key    sas.Key // instead of the policy's
	group  string
}

func newBackEnd(t testing.TB, options ...hubtest.Option) *backEnd {
	t.Helper()
	options = append(options, hubtest.WithAMQPAddrs("", "127.0.0.1:0"))
	h := hubtest.New(t, options...)
	return &backEnd{Hub: h, t: t, policy: "service", group: hub.DefaultConsumerGroup}
}

// Readers returns how many the node has that readers are connected to.
func (b *backEnd) Readers() int { return b.At(b.AMQPSAddr).Readers() }

// connectionString is that of the built-in endpoint.
func (b *backEnd) connectionString() string {
	b.t.Helper()
	policies := b.Policies()
	i := slices.IndexFunc(policies, func(p hub.Policy) bool { return p.Name == b.policy })
	cs := b.EventHub()
	cs.SharedAccessKeyName, cs.SharedAccessKey = b.policy, cmp.Or(b.key, policies[i].PrimaryKey)
	if !b.plain {
		_, port, err := net.SplitHostPort(b.AMQPSAddr)
		if err != nil {
			b.t.Fatal(err)
		}
		cs.Host, cs.UseDevelopmentEmulator = net.JoinHostPort(b.HostName, port), false
	}
	return cs.Format()
}

func (b *backEnd) consumer() *azeventhubs.ConsumerClient {
	b.t.Helper()
	config := b.ClientTLS()
	config.ServerName = b.HostName // the client would take the port for a part of it
	c, err := azeventhubs.NewConsumerClientFromConnectionString(b.connectionString(), "", b.group, &azeventhubs.ConsumerClientOptions{
		TLSConfig: config, RetryOptions: azeventhubs.RetryOptions{MaxRetries: -1},
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { c.Close(context.Background()) })
	return c
}

func (b *backEnd) reader(c *azeventhubs.ConsumerClient, partition int, opt azeventhubs.PartitionClientOptions) *azeventhubs.PartitionClient {
	b.t.Helper()
	p, err := c.NewPartitionClient(strconv.Itoa(partition), &opt)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { p.Close(context.Background()) })
	return p
}

// send stores telemetry of a device and waits until it is durable.
func (b *backEnd) send(device string, list ...hub.Telemetry) {
	b.t.Helper()
	stored := make(chan error, len(list))
	for _, m := range list {
		if err := b.ReceiveTelemetry(hub.Peer{ID: hub.ID{Device: device}}, m, func(err error) { stored <- err }); err != nil {
			b.t.Fatal(err)
		}
	}
	for range list {
		if err := <-stored; err != nil {
			b.t.Fatal(err)
		}
	}
}

// telemetry are messages with these bodies.
func telemetry(bodies ...string) (list []hub.Telemetry) {
	for _, body := range bodies {
		list = append(list, hub.Telemetry{Body: []byte(body)})
	}
	return list
}

// receive returns the bodies of the next n events.
func (b *backEnd) receive(p *azeventhubs.PartitionClient, n int) (bodies []string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 20*time.Second)
	defer cancel()
	for len(bodies) < n {
		events, err := p.ReceiveEvents(ctx, n-len(bodies), nil)
		if err != nil {
			b.t.Fatalf("receive behind %d events: %v", len(bodies), err)
		}
		for _, e := range events {
			bodies = append(bodies, string(e.Body))
		}
	}
	return bodies
}

// eachForm runs a test with TLS and in the form of the emulator.
func eachForm(t *testing.T, test func(t *testing.T, b *backEnd), options ...hubtest.Option) {
	for _, plain := range []bool{false, true} {
		t.Run(map[bool]string{false: "TLS", true: "emulator"}[plain], func(t *testing.T) {
			b := newBackEnd(t, options...)
			b.plain = plain
			test(t, b)
		})
	}
}

var earliest = azeventhubs.StartPosition{Earliest: new(true)}

func TestEventHubsClientReadsAllPartitionsWhileDevicesSend(t *testing.T) {
	eachForm(t, func(t *testing.T, b *backEnd) {
		const devices, messages = 16, 200 // more than a reader has credit for
		want := map[string][]string{}
		for i := range devices {
			for n := range messages {
				want[fmt.Sprint("device-", i)] = append(want[fmt.Sprint("device-", i)], fmt.Sprint(n))
			}
		}
		var mu sync.Mutex
		got := map[string][]string{}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		all := 0
		c := b.consumer()
		var wg sync.WaitGroup
		for partition := range b.EventPartitions() {
			p := b.reader(c, partition, azeventhubs.PartitionClientOptions{StartPosition: earliest})
			wg.Go(func() {
				next := int64(0)
				for {
					events, err := p.ReceiveEvents(ctx, 1, nil)
					if err != nil {
						return
					}
					for _, e := range events {
						// In a stream the numbers of a partition rise with gaps.
						if e.SequenceNumber != next && (e.SequenceNumber < next || !hubtest.Several()) {
							t.Errorf("partition %d: event %d, want %d", partition, e.SequenceNumber, next)
						}
						next = e.SequenceNumber + 1
						mu.Lock()
						device := e.SystemProperties["iothub-connection-device-id"].(string)
						got[device] = append(got[device], string(e.Body))
						if all++; all == devices*messages {
							cancel()
						}
						mu.Unlock()
					}
				}
			})
		}
		for device, bodies := range want {
			wg.Go(func() { b.send(device, telemetry(bodies...)...) })
		}
		wg.Wait()
		if diff := gocmp.Diff(want, got); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
	})
}

func TestEventHubsClientSeesWhatAnEventIs(t *testing.T) {
	b := newBackEnd(t, hubtest.WithOptions(node.Options{EventHubSources: []hub.EventSource{hub.SourceTelemetry, hub.SourceTwinChange}}))
	b.Module("d1", "m1")
	id := hub.ID{Device: "d1", Module: "m1"}
	stored := make(chan error, 1)
	if err := b.ReceiveTelemetry(hub.Peer{ID: id, Model: "dtmi:x;1"}, hub.Telemetry{
		System:     []hub.Property{{Name: "message-id", Value: "1"}, {Name: "content-type", Value: "text/plain"}, {Name: "user-id", Value: "u"}},
		Properties: []hub.Property{{Name: "a", Value: "b"}, {Name: "empty"}, {Name: "none", Null: true}},
		Body:       []byte("body"),
	}, func(err error) { stored <- err }); err != nil {
		t.Fatal(err)
	}
	if err := <-stored; err != nil {
		t.Fatal(err)
	}
	if err := b.Update(id.Device, func(tx *hub.Tx) error {
		_, err := tx.PatchReported(id, []byte(`{"x":1}`), hub.AnyVersion)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	var want []hub.Event
	for e, err := range b.Events(t.Context(), hub.EventQuery{Sources: []hub.EventSource{hub.SourceTelemetry, hub.SourceTwinChange}}) {
		if err != nil {
			t.Fatal(err)
		}
		e.Body = slices.Clone(e.Body)
		want = append(want, e)
	}
	p := b.reader(b.consumer(), want[0].Partition, azeventhubs.PartitionClientOptions{StartPosition: earliest})
	got, err := p.ReceiveEvents(t.Context(), 2, nil)
	if err != nil {
		t.Fatal(err)
	}
	type seen struct {
		Sequence          int64
		Offset            string
		Enqueued          time.Time
		PartitionKey      *string
		ContentType       string
		MessageID         string
		Properties        map[string]any
		System            map[string]any
		Body, Encoding, U string
	}
	see := func(e *azeventhubs.ReceivedEventData) seen {
		s := seen{Sequence: e.SequenceNumber, Offset: e.Offset, Enqueued: *e.EnqueuedTime, PartitionKey: e.PartitionKey,
			Properties: e.Properties, System: maps.Clone(e.SystemProperties), Body: string(e.Body)}
		delete(s.System, "iothub-connection-auth-method")
		if e.ContentType != nil {
			s.ContentType = *e.ContentType
		}
		if e.MessageID != nil {
			s.MessageID = *e.MessageID
		}
		p := e.RawAMQPMessage.Properties
		if p.ContentEncoding != nil {
			s.Encoding = *p.ContentEncoding
		}
		s.U = string(p.UserID)
		return s
	}
	ms := func(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }
	system := func(e hub.Event, more map[string]any) map[string]any {
		m := map[string]any{
			"iothub-connection-device-id": "d1", "iothub-connection-module-id": "m1",
			"iothub-enqueuedtime": ms(e.Enqueued), "iothub-message-source": string(e.Source),
		}
		maps.Copy(m, more)
		return m
	}
	patched := map[string]any{}
	for _, p := range want[1].Properties {
		patched[p.Name] = p.Value
	}
	wantSeen := []seen{
		{
			Sequence: want[0].Sequence, Offset: fmt.Sprint(want[0].Offset), Enqueued: ms(want[0].Enqueued),
			ContentType: "text/plain", MessageID: "1", U: "u",
			Properties: map[string]any{"a": "b", "empty": "", "none": nil},
			System:     system(want[0], map[string]any{"dt-dataschema": "dtmi:x;1"}), Body: "body",
		},
		{
			Sequence: want[1].Sequence, Offset: fmt.Sprint(want[1].Offset), Enqueued: ms(want[1].Enqueued),
			ContentType: "application/json", Encoding: "utf-8", U: "localhost",
			Properties: patched, System: system(want[1], nil), Body: string(want[1].Body),
		},
	}
	if diff := gocmp.Diff(wantSeen, []seen{see(got[0]), see(got[1])}); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if patched["opType"] != "updateTwin" || patched["iothub-message-schema"] != "twinChangeNotification" {
		t.Errorf("the twin's event has the properties %v", patched)
	}
}

func TestEventHubsClientBeginsAtAnyPosition(t *testing.T) {
	b := newBackEnd(t, hubtest.WithOptions(node.Options{EventPartitions: 32}))
	b.send("d1", telemetry("a", "b")...)
	var first []hub.Event
	for e := range b.Events(t.Context(), hub.EventQuery{Sources: []hub.EventSource{hub.SourceTelemetry}}) {
		first = append(first, e)
	}
	// The next one is of a later millisecond.
	for time.Now().UnixMilli() <= first[1].Enqueued.UnixMilli() {
		b.send("other", telemetry("x")...)
	}
	b.send("d1", telemetry("c")...)
	c := b.consumer()
	for _, tt := range []struct {
		name string
		from azeventhubs.StartPosition
		want []string
	}{
		{"the oldest", earliest, []string{"a", "b", "c"}},
		{"behind an offset", azeventhubs.StartPosition{Offset: new(fmt.Sprint(first[0].Offset))}, []string{"b", "c"}},
		{"at an offset", azeventhubs.StartPosition{Offset: new(fmt.Sprint(first[1].Offset)), Inclusive: true}, []string{"b", "c"}},
		{"behind a number", azeventhubs.StartPosition{SequenceNumber: new(first[0].Sequence)}, []string{"b", "c"}},
		{"at a number", azeventhubs.StartPosition{SequenceNumber: new(first[0].Sequence), Inclusive: true}, []string{"a", "b", "c"}},
		{"behind a time", azeventhubs.StartPosition{EnqueuedTime: new(first[1].Enqueued)}, []string{"c"}},
		{"at a time", azeventhubs.StartPosition{EnqueuedTime: new(first[0].Enqueued), Inclusive: true}, []string{"a", "b", "c"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := b.reader(c, first[0].Partition, azeventhubs.PartitionClientOptions{StartPosition: tt.from})
			defer p.Close(t.Context())
			if diff := gocmp.Diff(tt.want, b.receive(p, len(tt.want))); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("the end", func(t *testing.T) {
		before := b.Readers()
		p := b.reader(c, first[0].Partition, azeventhubs.PartitionClientOptions{StartPosition: azeventhubs.StartPosition{Latest: new(true)}})
		defer p.Close(t.Context())
		got := make(chan []string)
		go func() { got <- b.receive(p, 1) }()
		if !wiretest.Eventually(t, func() bool { return b.Readers() > before }) { // it attaches when it receives
			t.Fatal("the reader does not attach")
		}
		b.send("d1", telemetry("d")...)
		if diff := gocmp.Diff([]string{"d"}, <-got); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
	})
}

func TestEventHubsClientLosesAPartition(t *testing.T) {
	eachForm(t, func(t *testing.T, b *backEnd) {
		b.send("d1", telemetry("a")...)
		partition := -1
		for e := range b.Events(t.Context(), hub.EventQuery{}) {
			partition = e.Partition
		}
		lost := func(err error) bool {
			var e *azeventhubs.Error
			return errors.As(err, &e) && e.Code == azeventhubs.ErrorCodeOwnershipLost
		}
		read := func(level *int64) (*azeventhubs.PartitionClient, error) {
			p := b.reader(b.consumer(), partition, azeventhubs.PartitionClientOptions{StartPosition: earliest, OwnerLevel: level})
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			_, err := p.ReceiveEvents(ctx, 1, nil)
			return p, err
		}
		var owner *azeventhubs.PartitionClient
		for _, tt := range []struct {
			level *int64
			owns  bool
		}{
			{nil, true},
			{new(int64(0)), true}, // takes it from one without a level
			{new(int64(0)), true}, // the newer of equals
			{new(int64(2)), true},
			{new(int64(1)), false},
			{nil, false},
		} {
			p, err := read(tt.level)
			if !tt.owns {
				if !lost(err) {
					t.Errorf("a reader of level %v beside one of 2: %v", tt.level, err)
				}
				continue
			}
			if err != nil {
				t.Fatalf("a reader of level %v: %v", tt.level, err)
			}
			if owner != nil {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				if _, err := owner.ReceiveEvents(ctx, 1, nil); !lost(err) {
					t.Errorf("the reader before that of level %v: %v", tt.level, err)
				}
				cancel()
			}
			owner = p
		}
		owner.Close(t.Context())
		if _, err := read(nil); err != nil {
			t.Errorf("a reader when the owner has gone: %v", err)
		}
	})
}

func TestEventHubsClientAsksForProperties(t *testing.T) {
	eachForm(t, func(t *testing.T, b *backEnd) {
		b.send("d1", telemetry("a", "b")...)
		b.Device("d1") // an event that readers do not get
		c := b.consumer()
		got, err := c.GetEventHubProperties(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		want := azeventhubs.EventHubProperties{Name: amqp.EventHubName, PartitionIDs: []string{"0", "1", "2", "3"}, CreatedOn: b.At(b.AMQPSAddr).Started()}
		if diff := gocmp.Diff(want, got, cmpopts.EquateApproxTime(time.Millisecond)); diff != "" {
			t.Errorf("event hub (-want +got):\n%s", diff)
		}
		var last hub.Event
		for last = range b.Events(t.Context(), hub.EventQuery{Sources: []hub.EventSource{hub.SourceTelemetry}}) {
		}
		first := map[int]int64{}
		for e := range b.Events(t.Context(), hub.EventQuery{}) {
			if _, ok := first[e.Partition]; !ok {
				first[e.Partition] = e.Sequence
			}
		}
		for partition := range b.EventPartitions() {
			got, err := c.GetPartitionProperties(t.Context(), strconv.Itoa(partition), nil)
			if err != nil {
				t.Fatal(err)
			}
			want := azeventhubs.PartitionProperties{
				EventHubName: amqp.EventHubName, PartitionID: strconv.Itoa(partition),
				BeginningSequenceNumber: first[partition], LastEnqueuedSequenceNumber: first[partition] - 1, LastEnqueuedOffset: "-1", LastEnqueuedOn: time.Unix(0, 0), IsEmpty: true,
			}
			if partition == last.Partition {
				want.LastEnqueuedSequenceNumber, want.LastEnqueuedOffset = last.Sequence, fmt.Sprint(last.Offset)
				want.LastEnqueuedOn, want.IsEmpty = last.Enqueued, false
			}
			if diff := gocmp.Diff(want, got, cmpopts.EquateApproxTime(time.Millisecond)); diff != "" {
				t.Errorf("partition %d (-want +got):\n%s", partition, diff)
			}
		}
		for _, partition := range []string{"4", "x", "-1", ""} {
			if _, err := c.GetPartitionProperties(t.Context(), partition, nil); err == nil {
				t.Errorf("partition %q has properties", partition)
			}
		}
	})
}

func TestEventHubsClientIsRefused(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(b *backEnd) (partition int)
		want   string
	}{
		{"an unknown partition", func(*backEnd) int { return 4 }, "com.microsoft:argument-out-of-range"},
		{"an unknown group", func(b *backEnd) int { b.group = "nobody"; return 0 }, "amqp:not-found"},
		{"a wrong key", func(b *backEnd) int { b.key = "d3Jvbmc="; return 0 }, "401"},
		{"a policy without the right", func(b *backEnd) int { b.policy = "registryRead"; return 0 }, "amqp:unauthorized-access"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBackEnd(t)
			partition := tt.change(b)
			p := b.reader(b.consumer(), partition, azeventhubs.PartitionClientOptions{StartPosition: earliest})
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			if _, err := p.ReceiveEvents(ctx, 1, nil); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("receive: %v, want %s", err, tt.want)
			}
		})
	}
}

// A store is a processor's, in memory.
type store struct {
	mu          sync.Mutex
	checkpoints map[string]azeventhubs.Checkpoint
	owners      map[string]azeventhubs.Ownership
	etag        int
}

func (s *store) ClaimOwnership(_ context.Context, list []azeventhubs.Ownership, _ *azeventhubs.ClaimOwnershipOptions) (claimed []azeventhubs.Ownership, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range list {
		if there, ok := s.owners[o.PartitionID]; ok && (o.ETag == nil || *o.ETag != *there.ETag) {
			continue
		}
		s.etag++
		o.ETag, o.LastModifiedTime = new(azcore.ETag(strconv.Itoa(s.etag))), time.Now()
		s.owners[o.PartitionID] = o
		claimed = append(claimed, o)
	}
	return claimed, nil
}

func (s *store) ListCheckpoints(context.Context, string, string, string, *azeventhubs.ListCheckpointsOptions) ([]azeventhubs.Checkpoint, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.checkpoints)), nil
}

func (s *store) ListOwnership(context.Context, string, string, string, *azeventhubs.ListOwnershipOptions) ([]azeventhubs.Ownership, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.owners)), nil
}

func (s *store) SetCheckpoint(_ context.Context, c azeventhubs.Checkpoint, _ *azeventhubs.SetCheckpointOptions) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checkpoints[c.PartitionID] = c
	return nil
}

func TestEventHubsProcessorsShareThePartitions(t *testing.T) {
	b := newBackEnd(t)
	s := &store{checkpoints: map[string]azeventhubs.Checkpoint{}, owners: map[string]azeventhubs.Ownership{}}
	var mu sync.Mutex
	got := map[string]int{}
	by := map[int]int{} // events of a processor
	sent := 0
	changed := make(chan struct{}, 1)
	run := func(n int) (stop func()) {
		processor, err := azeventhubs.NewProcessor(b.consumer(), s, &azeventhubs.ProcessorOptions{
			UpdateInterval: 100 * time.Millisecond, PartitionExpirationDuration: 3 * time.Second, StartPositions: azeventhubs.StartPositions{Default: earliest},
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { processor.Run(ctx) })
		wg.Go(func() {
			for p := processor.NextPartitionClient(ctx); p != nil; p = processor.NextPartitionClient(ctx) {
				wg.Go(func() {
					defer p.Close(context.Background())
					for {
						events, err := p.ReceiveEvents(ctx, 1, nil)
						if err != nil {
							return
						}
						mu.Lock()
						for _, e := range events {
							got[string(e.Body)]++
							by[n]++
						}
						mu.Unlock()
						p.UpdateCheckpoint(ctx, events[len(events)-1], nil)
						select {
						case changed <- struct{}{}:
						default:
						}
					}
				})
			}
		})
		return func() { cancel(); wg.Wait() }
	}
	await := func(what string, ok func() bool) {
		t.Helper()
		deadline := time.After(30 * time.Second)
		for {
			mu.Lock()
			done := ok()
			mu.Unlock()
			if done {
				return
			}
			select {
			case <-changed:
			case <-deadline:
				t.Fatalf("%s: %d of %d events, %v by each processor", what, len(got), sent, by)
			}
		}
	}
	send := func() {
		for range 20 {
			b.send(fmt.Sprint("device-", sent%20), telemetry(fmt.Sprint(sent))...)
			sent++
		}
	}
	stop := run(1)
	defer func() { stop() }()
	send()
	await("one processor", func() bool { return len(got) == sent })
	stop2 := run(2)
	defer func() { stop2() }()
	await("two processors", func() bool {
		if len(changed) == 0 {
			mu.Unlock()
			send()
			mu.Lock()
		}
		return by[2] > 0
	})
	stop()
	await("the second alone", func() bool { return len(got) == sent })
}
