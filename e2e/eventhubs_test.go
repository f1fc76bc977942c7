package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/iotdm/iotdm/mqttdevice"
	"github.com/iotdm/iotdm/sas"
)

// TestGoEventHubs reads the telemetry of an MQTT device with azeventhubs, in
// every way in which that reaches a hub.
func TestGoEventHubs(t *testing.T) {
	t.Parallel()
	h := startEventHub(t, "127.0.0.61")
	device := h.mqttDevice(t, "d1", nil)
	const total = 10
	for n := range total {
		h.send(t, device, n)
	}
	owner := h.eventHub(t)
	for _, tt := range []struct {
		name, connectionString string
		options                azeventhubs.ConsumerClientOptions
	}{
		{"TLS", owner, azeventhubs.ConsumerClientOptions{TLSConfig: h.tls(t)}},
		{"WebSocket", owner, azeventhubs.ConsumerClientOptions{NewWebSocketConn: h.webSocket(t)}},
		{"plain TCP", h.eventHub(t, "--emulator"), azeventhubs.ConsumerClientOptions{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			client := newConsumer(t, tt.connectionString, azeventhubs.DefaultConsumerGroup, tt.options)
			hub, err := client.GetEventHubProperties(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if hub.Name != "iothub-ehub-iotdm" || len(hub.PartitionIDs) == 0 {
				t.Fatalf("the event hub's properties: got %+v", hub)
			}
			partition := notEmpty(t, client, hub.PartitionIDs)
			first := azeventhubs.StartPosition{Earliest: new(true)}
			events := receive(t, client, partition.PartitionID, first, total)
			for n, e := range events {
				checkEvent(t, e, n)
			}
			last := events[total-1]
			if diff := cmp.Diff(azeventhubs.PartitionProperties{
				EventHubName: hub.Name, PartitionID: partition.PartitionID, BeginningSequenceNumber: min(partition.BeginningSequenceNumber, events[0].SequenceNumber),
				LastEnqueuedSequenceNumber: last.SequenceNumber, LastEnqueuedOffset: last.Offset, LastEnqueuedOn: *last.EnqueuedTime,
			}, partition, cmpopts.EquateApproxTime(time.Millisecond)); diff != "" {
				t.Errorf("properties of the partition (-want +got):\n%s", diff)
			}

			from := events[4]
			for name, position := range map[string]struct {
				azeventhubs.StartPosition
				want int
			}{
				"after an offset":           {azeventhubs.StartPosition{Offset: &from.Offset}, 5},
				"from an offset":            {azeventhubs.StartPosition{Offset: &from.Offset, Inclusive: true}, 4},
				"after a sequence number":   {azeventhubs.StartPosition{SequenceNumber: &from.SequenceNumber}, 5},
				"from a sequence number":    {azeventhubs.StartPosition{SequenceNumber: &from.SequenceNumber, Inclusive: true}, 4},
				"from before the first one": {azeventhubs.StartPosition{EnqueuedTime: new(events[0].EnqueuedTime.Add(-time.Second))}, 0},
			} {
				t.Run(name, func(t *testing.T) {
					checkEvent(t, receive(t, client, partition.PartitionID, position.StartPosition, 1)[0], position.want)
				})
			}
		})
	}

	client := newConsumer(t, owner, "tools", azeventhubs.ConsumerClientOptions{TLSConfig: h.tls(t)})
	hub, err := client.GetEventHubProperties(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	id := notEmpty(t, client, hub.PartitionIDs).PartitionID

	t.Run("a higher owner level takes the partition", func(t *testing.T) {
		low := newPartition(t, client, id, azeventhubs.PartitionClientOptions{OwnerLevel: new(int64(1)), StartPosition: azeventhubs.StartPosition{Earliest: new(true)}})
		if _, err := low.ReceiveEvents(t.Context(), total, nil); err != nil {
			t.Fatal(err)
		}
		lost := make(chan error, 1)
		go func() {
			_, err := low.ReceiveEvents(t.Context(), 1, nil)
			lost <- err
		}()
		high := newPartition(t, client, id, azeventhubs.PartitionClientOptions{OwnerLevel: new(int64(2)), StartPosition: azeventhubs.StartPosition{Earliest: new(true)}})
		if _, err := high.ReceiveEvents(t.Context(), 1, nil); err != nil {
			t.Fatal(err)
		}
		wantCode(t, "the lower level", <-lost, azeventhubs.ErrorCodeOwnershipLost)
		again := newPartition(t, client, id, azeventhubs.PartitionClientOptions{OwnerLevel: new(int64(1))})
		_, err := again.ReceiveEvents(t.Context(), 1, nil)
		wantCode(t, "a lower level later", err, azeventhubs.ErrorCodeOwnershipLost)
	})

	t.Run("new events come at once", func(t *testing.T) {
		newest := newPartition(t, client, id, azeventhubs.PartitionClientOptions{OwnerLevel: new(int64(3)), StartPosition: azeventhubs.StartPosition{Latest: new(true)}})
		type result struct {
			events []*azeventhubs.ReceivedEventData
			err    error
		}
		got := make(chan result, 1)
		go func() {
			events, err := newest.ReceiveEvents(t.Context(), 1, nil)
			got <- result{events, err}
		}()
		// What is sent before the reader is there is not for it.
		for n := total; ; n++ {
			h.send(t, device, n)
			select {
			case r := <-got:
				if r.err != nil {
					t.Fatal(r.err)
				}
				if body := string(r.events[0].Body); slices.Contains([]string{"0", "1", "2"}, body) {
					t.Errorf("the newest event: got %s, which is old", body)
				}
				return
			default:
			}
		}
	})

	t.Run("refusals", func(t *testing.T) {
		options := azeventhubs.ConsumerClientOptions{TLSConfig: h.tls(t), RetryOptions: azeventhubs.RetryOptions{MaxRetries: -1}}
		if _, err := client.GetPartitionProperties(t.Context(), "99", nil); err == nil {
			t.Error("properties of partition 99: got no error")
		}
		for name, pc := range map[string]*azeventhubs.PartitionClient{
			"an unknown partition":      newPartition(t, newConsumer(t, owner, "tools", options), "99", azeventhubs.PartitionClientOptions{}),
			"an unknown consumer group": newPartition(t, newConsumer(t, owner, "nobody", options), id, azeventhubs.PartitionClientOptions{}),
		} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if _, err := pc.ReceiveEvents(ctx, 1, nil); err == nil || ctx.Err() != nil {
				t.Errorf("%s: got %v, want a refusal", name, err)
			}
		}
		key := owner[strings.Index(owner, "SharedAccessKey="):]
		key, _, _ = strings.Cut(key, ";")
		wrong := newConsumer(t, strings.Replace(owner, key, "SharedAccessKey="+strings.Repeat("A", 43)+"=", 1), "tools", options)
		_, err := newPartition(t, wrong, id, azeventhubs.PartitionClientOptions{}).ReceiveEvents(t.Context(), 1, nil)
		wantCode(t, "a wrong key", err, azeventhubs.ErrorCodeUnauthorizedAccess)
	})
}

// checkEvent checks that an event is the one that hubProcess.send sent for n.
func checkEvent(t *testing.T, e *azeventhubs.ReceivedEventData, n int) {
	t.Helper()
	type event struct {
		Body, ID, ContentType, Color string
		System                       map[string]string
	}
	text := func(p *string) string {
		if p == nil {
			return ""
		}
		return *p
	}
	got := event{Body: string(e.Body), ID: text(e.MessageID), ContentType: text(e.ContentType), Color: fmt.Sprint(e.Properties["color"]), System: map[string]string{}}
	for _, name := range []string{"iothub-connection-device-id", "iothub-message-source"} {
		got.System[name] = fmt.Sprint(e.SystemProperties[name])
	}
	want := event{
		Body: fmt.Sprint(n), ID: fmt.Sprint("m-", n), ContentType: "application/json", Color: "a b/c&d=e",
		System: map[string]string{"iothub-connection-device-id": "d1", "iothub-message-source": "Telemetry"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("event %d (-want +got):\n%s", n, diff)
	}
	if at, ok := e.SystemProperties["iothub-enqueuedtime"].(time.Time); !ok || time.Since(at).Abs() > time.Hour {
		t.Errorf("event %d was enqueued at %v", n, e.SystemProperties["iothub-enqueuedtime"])
	}
}

func wantCode(t *testing.T, what string, err error, want azeventhubs.ErrorCode) {
	t.Helper()
	if e, ok := errors.AsType[*azeventhubs.Error](err); !ok || e.Code != want {
		t.Errorf("%s: got error %v, want code %s", what, err, want)
	}
}

func newConsumer(t *testing.T, connectionString, group string, options azeventhubs.ConsumerClientOptions) *azeventhubs.ConsumerClient {
	t.Helper()
	client, err := azeventhubs.NewConsumerClientFromConnectionString(connectionString, "", group, &options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(context.Background()) })
	return client
}

func newPartition(t *testing.T, client *azeventhubs.ConsumerClient, id string, options azeventhubs.PartitionClientOptions) *azeventhubs.PartitionClient {
	t.Helper()
	pc, err := client.NewPartitionClient(id, &options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close(context.Background()) })
	return pc
}

// notEmpty returns the properties of the one partition that has events.
func notEmpty(t *testing.T, client *azeventhubs.ConsumerClient, ids []string) azeventhubs.PartitionProperties {
	t.Helper()
	for _, id := range ids {
		p, err := client.GetPartitionProperties(t.Context(), id, nil)
		if err != nil {
			t.Fatal(err)
		}
		if !p.IsEmpty {
			return p
		}
	}
	t.Fatal("all partitions are empty")
	panic("unreachable")
}

// receive reads count events of a partition.
func receive(t *testing.T, client *azeventhubs.ConsumerClient, partition string, from azeventhubs.StartPosition, count int) []*azeventhubs.ReceivedEventData {
	t.Helper()
	pc := newPartition(t, client, partition, azeventhubs.PartitionClientOptions{StartPosition: from})
	defer pc.Close(context.Background())
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	events, err := pc.ReceiveEvents(ctx, count, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(events) != count {
		t.Fatalf("got %d events, want %d", len(events), count)
	}
	return events
}

// tls returns a configuration that trusts the hub's authority.
func (h *hubProcess) tls(t *testing.T) *tls.Config {
	t.Helper()
	roots := x509.NewCertPool()
	if ca, err := os.ReadFile(filepath.Join(h.data, "ca.pem")); err != nil || !roots.AppendCertsFromPEM(ca) {
		t.Fatalf("the hub's authority: %v", err)
	}
	return &tls.Config{RootCAs: roots}
}

// webSocket returns how azeventhubs gets a WebSocket, as its example does.
func (h *hubProcess) webSocket(t *testing.T) func(context.Context, azeventhubs.WebSocketConnParams) (net.Conn, error) {
	client := h.httpClient(t)
	return func(ctx context.Context, args azeventhubs.WebSocketConnParams) (net.Conn, error) {
		ws, _, err := websocket.Dial(ctx, args.Host, &websocket.DialOptions{Subprotocols: []string{"amqp"}, HTTPClient: client})
		if err != nil {
			return nil, err
		}
		return websocket.NetConn(context.Background(), ws, websocket.MessageBinary), nil
	}
}

// mqttDevice makes a device and connects it over MQTT.
func (h *hubProcess) mqttDevice(t *testing.T, id string, handle mqttdevice.MessageHandler) *mqttdevice.Client {
	t.Helper()
	h.iotdm(t, "service", "device", "create", "--device", id)
	connectionString, err := sas.ParseConnectionString(h.connectionString(t, "--device", id))
	if err != nil {
		t.Fatal(err)
	}
	device, err := mqttdevice.New(mqttdevice.Options{ConnectionString: connectionString, TLS: h.tls(t)})
	if err != nil {
		t.Fatal(err)
	}
	if handle != nil {
		device.HandleMessage(handle)
	}
	if err := device.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { device.Close() })
	return device
}

// send sends one message of telemetry, which checkEvent knows again.
func (h *hubProcess) send(t *testing.T, device *mqttdevice.Client, n int) {
	t.Helper()
	if err := device.Send(t.Context(), mqttdevice.Message{
		Payload: fmt.Append(nil, n), ID: fmt.Sprint("m-", n), ContentType: "application/json", ContentEncoding: "utf-8",
		Properties: map[string]string{"color": "a b/c&d=e"},
	}); err != nil {
		t.Fatal(err)
	}
}
