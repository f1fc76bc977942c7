package hubtest_test

import (
	"crypto/tls"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/Azure/go-amqp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/fault"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
)

// overAMQP runs a test on a connection of d1, over TCP and over WebSocket, and
// checks that each of its faults has struck once.
func overAMQP(t *testing.T, test func(*testing.T, *hubtest.Hub, *wiretest.AMQPClient)) {
	for name, dial := range map[string]func(testing.TB, *hubtest.Hub, ...tls.Certificate) net.Conn{"TCP": wiretest.DialAMQPTCP, "WebSocket": wiretest.DialAMQPWebSocket} {
		t.Run(name, func(t *testing.T) {
			h := hubtest.New(t)
			token := deviceToken(t, h, "d1")
			c := wiretest.OpenAMQP(t, h, dial(t, h))
			c.Claim(h.HostName+"/devices/d1", token)
			test(t, h, c)
			for _, a := range h.Faults() {
				if a.Struck != 1 {
					t.Errorf("%+v struck %d times, want once", a.Fault, a.Struck)
				}
			}
		})
	}
}

func TestFaultsOfTwinsOverAMQP(t *testing.T) {
	overAMQP(t, func(t *testing.T, h *hubtest.Hub, c *wiretest.AMQPClient) {
		in, out := c.Receiver("/devices/d1/twin"), c.Sender("/devices/d1/twin")
		ask := func(operation, resource, id string) {
			t.Helper()
			m := amqp.NewMessage([]byte(`{"asked":true}`))
			m.Annotations = amqp.Annotations{"operation": operation}
			if resource != "" {
				m.Annotations["resource"] = resource
			}
			m.Properties = &amqp.MessageProperties{CorrelationID: id}
			if err := out.Send(wiretest.WithPatience(t), m, nil); err != nil {
				t.Fatal(err)
			}
		}
		want := func(id string, status int32) {
			t.Helper()
			m, err := in.Receive(wiretest.WithPatience(t), nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := in.AcceptMessage(wiretest.WithPatience(t), m); err != nil {
				t.Error(err)
			}
			if m.Properties.CorrelationID != id || m.Annotations["status"] != status {
				t.Errorf("%v is answered with %v, want %s with %d", m.Properties.CorrelationID, m.Annotations["status"], id, status)
			}
		}
		get := func(id string) { t.Helper(); ask("GET", "", id) }
		report := func(id string) { t.Helper(); ask("PATCH", "/properties/reported", id) }
		for status := range map[int]bool{429: true, 503: true, 404: true} {
			h.Fault(fault.Fault{On: fault.Twin, Device: "d1", Status: status, Count: 1})
			report("refused")
			want("refused", int32(status))
		}
		h.Fault(fault.Fault{On: fault.Twin, Drop: true, Count: 1})
		report("lost")
		get("kept")
		want("kept", 200)
		h.Fault(fault.Fault{On: fault.Twin, Latency: late, Count: 1})
		wantLate(t, func() {
			get("late")
			want("late", 200)
		})
		if twin, err := h.DeviceTwin(hub.ID{Device: "d1"}); err != nil || string(twin) != `{"desired":{"$version":1},"reported":{"$version":1}}` {
			t.Errorf("what was refused or lost has changed the twin: %s, %v", twin, err)
		}
		report("at last")
		want("at last", 204)
	})
}

func TestFaultsOfMessagesOverAMQP(t *testing.T) {
	overAMQP(t, func(t *testing.T, h *hubtest.Hub, c *wiretest.AMQPClient) {
		in := c.Receiver("/devices/d1/messages/devicebound")
		send := func(body string) { t.Helper(); wiretest.SendMessage(t, h.Node, "d1", wiretest.Message(body)) }
		want := func(body string) {
			t.Helper()
			m, err := in.Receive(wiretest.WithPatience(t), nil)
			if err != nil {
				t.Fatal(err)
			}
			if string(m.GetData()) != body {
				t.Errorf("the message %q came, want %q", m.GetData(), body)
			}
			if err := in.AcceptMessage(wiretest.WithPatience(t), m); err != nil {
				t.Error(err)
			}
		}
		pending := func(want int) { // once the hub has handled what was accepted
			t.Helper()
			for deadline := time.Now().Add(wiretest.Patience); h.ConnectionState(hub.ID{Device: "d1"}).PendingMessages != want && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond)
			}
			wiretest.WantPending(t, h.Node, "d1", want)
		}
		h.Fault(fault.Fault{On: fault.Message, Device: "d1", Latency: late, Count: 1})
		wantLate(t, func() {
			send("late")
			send("behind")
			want("late")
		})
		want("behind")
		h.Fault(fault.Fault{On: fault.Message, Drop: true, Count: 1})
		send("lost")
		send("kept")
		want("kept")
		pending(1)
		h.Clock().Advance(2 * time.Minute) // the lock of what was lost ends
		want("lost")
		pending(0)
	})
}

// A message that a service sends over AMQP is rejected with the status's
// condition, and comes to nobody.
func TestFaultsOfMessagesThatServicesSend(t *testing.T) {
	h := hubtest.New(t)
	h.Device("d1")
	s := wiretest.DialAMQP(t, h, h.Policy("service")).Sender("/messages/devicebound")
	send := func() error {
		return s.Send(wiretest.WithPatience(t), wiretest.AMQPMessage("/devices/d1/messages/devicebound", "x"), nil)
	}
	for status, want := range map[int]amqp.ErrCond{
		403: "amqp:resource-limit-exceeded", 404: "amqp:not-found", 503: "amqp:internal-error",
	} {
		h.Fault(fault.Fault{On: fault.Message, Device: "d1", Status: status, Count: 1})
		var refused *amqp.Error
		if err := send(); !errors.As(err, &refused) || refused.Condition != want {
			t.Errorf("%d: %v, want %s", status, err, want)
		}
	}
	wiretest.WantPending(t, h.Node, "d1", 0)
	if err := send(); err != nil {
		t.Error(err)
	}
	wiretest.WantPending(t, h.Node, "d1", 1)
}
