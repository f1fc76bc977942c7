package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/Azure/go-amqp"
	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/mqttdevice"
	"github.com/iotdm/iotdm/sas"
)

// TestBackEnd has a device report over MQTT, a back end read that as from Event
// Hubs and answer over AMQP, the device complete the answer, and the back end
// hear of that.
func TestBackEnd(t *testing.T) {
	t.Parallel()
	h := startHubOn443(t, "127.0.0.62")
	answers := make(chan mqttdevice.CloudToDeviceMessage, 1)
	device := h.mqttDevice(t, "d1", func(_ context.Context, m mqttdevice.CloudToDeviceMessage) error {
		answers <- m
		return nil
	})
	h.send(t, device, 1)

	consumer := newConsumer(t, h.connectionString(t, "--event-hub", "--policy", "service"), azeventhubs.DefaultConsumerGroup, azeventhubs.ConsumerClientOptions{TLSConfig: h.tls(t)})
	hub, err := consumer.GetEventHubProperties(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	partition := notEmpty(t, consumer, hub.PartitionIDs).PartitionID
	event := receive(t, consumer, partition, azeventhubs.StartPosition{Earliest: new(true)}, 1)[0]
	checkEvent(t, event, 1)

	session := h.serviceSession(t, "service")
	from := fmt.Sprint(event.SystemProperties["iothub-connection-device-id"])
	feedback := newReceiver(t, session, "/messages/servicebound/feedback")
	sent := c2d(from, "well done")
	sent.Properties.MessageID = "answer-1"
	sent.Properties.CorrelationID = *event.MessageID
	sent.ApplicationProperties["iothub-ack"] = "full"
	if err := newSender(t, session, "/messages/devicebound").Send(t.Context(), sent, nil); err != nil {
		t.Fatal(err)
	}
	answer := <-answers
	type shape struct{ Body, ID, CorrelationID, Color string }
	if diff := cmp.Diff(shape{"well done", "answer-1", "m-1", "a b/c&d=e"}, shape{string(answer.Payload), answer.ID, answer.CorrelationID, answer.Properties["color"]}); diff != "" {
		t.Errorf("the answer at the device (-want +got):\n%s", diff)
	}

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	batch, err := feedback.Receive(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := feedback.AcceptMessage(ctx, batch); err != nil {
		t.Fatal(err)
	}
	type record struct{ OriginalMessageID, DeviceID, StatusCode, Description string }
	var records []record
	if err := json.Unmarshal(batch.GetData(), &records); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]record{{"answer-1", "d1", "Success", "Success"}}, records); diff != "" {
		t.Errorf("feedback (-want +got):\n%s", diff)
	}
	if got, want := batch.Properties.ContentType, "application/vnd.microsoft.iothub.feedback.json"; got == nil || *got != want {
		t.Errorf("content type of feedback: got %v, want %s", got, want)
	}
}

// TestGoAMQP speaks to the hub with go-amqp alone, as programs do that follow
// the article on AMQP without an SDK.
func TestGoAMQP(t *testing.T) {
	t.Parallel()
	h := startHubOn443(t, "127.0.0.63", "--amqp-addr", "127.0.0.63:5672")
	h.iotdm(t, "service", "device", "create", "--device", "d1")
	owner := h.policy(t, "iothubowner")
	token, err := sas.Sign(h.address, owner.SharedAccessKeyName, owner.SharedAccessKey, time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	name, _, _ := strings.Cut(h.address, ".")
	plain := amqp.SASLTypePlain("iothubowner@sas.root."+name, token)

	t.Run("TLS, PLAIN", func(t *testing.T) {
		conn, err := amqp.Dial(t.Context(), "amqps://"+h.address, &amqp.ConnOptions{SASLType: plain, TLSConfig: h.tls(t)})
		h.lifeOfMessage(t, newSession(t, conn, err))
	})
	t.Run("TLS, ANONYMOUS and a token", func(t *testing.T) {
		h.lifeOfMessage(t, h.serviceSession(t, "iothubowner"))
	})
	t.Run("TLS, no SASL and a token", func(t *testing.T) {
		conn, err := amqp.Dial(t.Context(), "amqps://"+h.address, &amqp.ConnOptions{TLSConfig: h.tls(t)})
		if err != nil {
			t.Fatal(err)
		}
		if status := putToken(t, conn, h.address, token); status != 200 {
			t.Fatalf("put-token was answered with %d", status)
		}
		h.lifeOfMessage(t, newSession(t, conn, nil))
	})
	t.Run("WebSocket", func(t *testing.T) {
		ws, _, err := websocket.Dial(t.Context(), "wss://"+h.address+"/$iothub/websocket", &websocket.DialOptions{Subprotocols: []string{"AMQPWSB10"}, HTTPClient: h.httpClient(t)})
		if err != nil {
			t.Fatal(err)
		}
		conn, err := amqp.NewConn(t.Context(), websocket.NetConn(t.Context(), ws, websocket.MessageBinary), &amqp.ConnOptions{SASLType: plain, HostName: h.address})
		h.lifeOfMessage(t, newSession(t, conn, err))
	})
	t.Run("plain TCP", func(t *testing.T) {
		conn, err := amqp.Dial(t.Context(), "amqp://"+h.address+":5672", &amqp.ConnOptions{SASLType: plain})
		h.lifeOfMessage(t, newSession(t, conn, err))
	})

	t.Run("refusals", func(t *testing.T) {
		session := h.serviceSession(t, "iothubowner")
		sender := newSender(t, session, "/messages/devicebound")
		wantCondition(t, "an unknown device", sender.Send(t.Context(), c2d("nobody", "hello"), nil), amqp.ErrCondNotFound)
		wantCondition(t, "too large", sender.Send(t.Context(), c2d("d1", strings.Repeat("x", 300_000)), nil), amqp.ErrCondMessageSizeExceeded)
		nowhere := c2d("d1", "hello")
		nowhere.Properties.To = new("/nowhere")
		if err := sender.Send(t.Context(), nowhere, nil); err == nil {
			t.Error("a message to nowhere: got no error")
		}
		for n := range 51 {
			if err := sender.Send(t.Context(), c2d("d1", "hello"), nil); (err != nil) != (n == 50) {
				t.Errorf("message %d to a queue for 50: got error %v", n+1, err)
			} else if err != nil {
				wantCondition(t, "a full queue", err, amqp.ErrCondResourceLimitExceeded)
			}
		}
		_, err := session.NewSender(t.Context(), "/messages/nowhere", nil)
		wantCondition(t, "an unknown address", err, amqp.ErrCondNotFound)
		registry := h.serviceSession(t, "registryRead")
		_, err = registry.NewSender(t.Context(), "/messages/devicebound", nil)
		wantCondition(t, "a policy without the right", err, amqp.ErrCondUnauthorizedAccess)
		conn, err := amqp.Dial(t.Context(), "amqps://"+h.address, &amqp.ConnOptions{SASLType: amqp.SASLTypeAnonymous(), TLSConfig: h.tls(t)})
		if err != nil {
			t.Fatal(err)
		}
		_, err = newSession(t, conn, nil).NewSender(t.Context(), "/messages/devicebound", nil)
		wantCondition(t, "no token", err, amqp.ErrCondUnauthorizedAccess)
		wrong, err := sas.Sign(h.address, "iothubowner", sas.NewKey(), time.Now().Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		if status := putToken(t, conn, h.address, wrong); status != 401 {
			t.Errorf("a token of a wrong key was answered with %d, want 401", status)
		}
		if _, err := amqp.Dial(t.Context(), "amqps://"+h.address, &amqp.ConnOptions{SASLType: amqp.SASLTypePlain("iothubowner@sas.root."+name, wrong), TLSConfig: h.tls(t)}); err == nil {
			t.Error("PLAIN with a token of a wrong key: got no error")
		}
	})
}

// lifeOfMessage sends a message to d1 as a service, and receives and completes it as d1.
func (h *hubProcess) lifeOfMessage(t *testing.T, session *amqp.Session) {
	t.Helper()
	sent := c2d("d1", t.Name())
	sent.Properties.MessageID = "m-1"
	if err := newSender(t, session, "/messages/devicebound").Send(t.Context(), sent, nil); err != nil {
		t.Fatal(err)
	}

	device, err := sas.ParseConnectionString(h.connectionString(t, "--device", "d1"))
	if err != nil {
		t.Fatal(err)
	}
	token, err := sas.Sign(h.address+"/devices/d1", "", device.SharedAccessKey, time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := amqp.Dial(t.Context(), "amqps://"+h.address, &amqp.ConnOptions{SASLType: amqp.SASLTypeAnonymous(), TLSConfig: h.tls(t)})
	if err != nil {
		t.Fatal(err)
	}
	if status := putToken(t, conn, h.address+"/devices/d1", token); status != 200 {
		t.Fatalf("put-token of the device was answered with %d", status)
	}
	receiver := newReceiver(t, newSession(t, conn, nil), "/devices/d1/messages/devicebound")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	got, err := receiver.Receive(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if string(got.GetData()) != t.Name() || got.Properties.MessageID != "m-1" || got.ApplicationProperties["color"] != "a b/c&d=e" {
		t.Errorf("the device received %q with %+v and %v", got.GetData(), got.Properties, got.ApplicationProperties)
	}
	if err := receiver.AcceptMessage(ctx, got); err != nil {
		t.Fatal(err)
	}
}

// c2d returns a cloud-to-device message.
func c2d(device, body string) *amqp.Message {
	m := amqp.NewMessage([]byte(body))
	m.Properties = &amqp.MessageProperties{To: new("/devices/" + device + "/messages/devicebound")}
	m.ApplicationProperties = map[string]any{"color": "a b/c&d=e"}
	return m
}

func wantCondition(t *testing.T, what string, err error, want amqp.ErrCond) {
	t.Helper()
	var condition amqp.ErrCond
	if e, ok := errors.AsType[*amqp.Error](err); ok {
		condition = e.Condition
	}
	if condition != want {
		t.Errorf("%s: got error %v, want condition %s", what, err, want)
	}
}

// policy returns the connection string of a policy.
func (h *hubProcess) policy(t *testing.T, name string) sas.ConnectionString {
	t.Helper()
	conn, err := sas.ParseConnectionString(h.connectionString(t, "--policy", name))
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// httpClient returns a client that trusts the hub's authority.
func (h *hubProcess) httpClient(t *testing.T) *http.Client {
	transport := &http.Transport{TLSClientConfig: h.tls(t)}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// serviceSession returns a session of a connection that has shown a token of the policy.
func (h *hubProcess) serviceSession(t *testing.T, policy string) *amqp.Session {
	t.Helper()
	key := h.policy(t, policy).SharedAccessKey
	token, err := sas.Sign(h.address, policy, key, time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := amqp.Dial(t.Context(), "amqps://"+h.address, &amqp.ConnOptions{SASLType: amqp.SASLTypeAnonymous(), TLSConfig: h.tls(t)})
	if err != nil {
		t.Fatal(err)
	}
	if status := putToken(t, conn, h.address, token); status != 200 {
		t.Fatalf("put-token was answered with %d", status)
	}
	return newSession(t, conn, nil)
}

// putToken gives the connection a token, and returns the status of the answer.
func putToken(t *testing.T, conn *amqp.Conn, audience, token string) int32 {
	t.Helper()
	session, err := conn.NewSession(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close(t.Context())
	sender, receiver := newSender(t, session, "$cbs"), newReceiver(t, session, "$cbs")
	request := &amqp.Message{
		Properties:            &amqp.MessageProperties{MessageID: "t-1", ReplyTo: new("cbs")},
		ApplicationProperties: map[string]any{"operation": "put-token", "type": "servicebus.windows.net:sastoken", "name": audience},
		Value:                 token,
	}
	if err := sender.Send(t.Context(), request, nil); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	reply, err := receiver.Receive(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if reply.Properties == nil || reply.Properties.CorrelationID != "t-1" {
		t.Errorf("the answer to put-token does not say to which: %+v", reply.Properties)
	}
	status, ok := reply.ApplicationProperties["status-code"].(int32)
	if !ok {
		t.Fatalf("status of put-token: got %#v, want an int", reply.ApplicationProperties["status-code"])
	}
	if err := receiver.AcceptMessage(ctx, reply); err != nil {
		t.Fatal(err)
	}
	return status
}

// newSession returns a session of conn, which is closed with the test, if err is nil.
func newSession(t *testing.T, conn *amqp.Conn, err error) *amqp.Session {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	session, err := conn.NewSession(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return session
}

func newSender(t *testing.T, session *amqp.Session, target string) *amqp.Sender {
	t.Helper()
	sender, err := session.NewSender(t.Context(), target, nil)
	if err != nil {
		t.Fatal(err)
	}
	return sender
}

func newReceiver(t *testing.T, session *amqp.Session, source string) *amqp.Receiver {
	t.Helper()
	receiver, err := session.NewReceiver(t.Context(), source, nil)
	if err != nil {
		t.Fatal(err)
	}
	return receiver
}
