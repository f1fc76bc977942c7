package hubamqp_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/iotdm/iotdm/hub/hubtest"
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
