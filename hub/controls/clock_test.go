package controls_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/clock"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/jobs"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/sas"
)

// All that waits for the hub's time comes as soon as that is moved over REST. By
// itself none of it would within the patience of a test.
func TestTheClockThatIsMovedOverREST(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{Clock: clock.New(), EventAge: 2 * time.Hour})
	for _, device := range []string{"d1", "d2", "d3"} {
		wiretest.Create(t, h.Node, hub.ID{Device: device}, hub.IdentitySpec{})
	}
	advance := func(t *testing.T, d time.Duration) {
		t.Helper()
		h.Do(wiretest.Call{Method: "POST", Path: "/iotdm/control/clock", Body: fmt.Sprintf(`{"advanceSeconds":%g}`, d.Seconds())}).Want(t, 200, "")
	}
	await := func(t *testing.T, what string, there func() bool) {
		t.Helper()
		for deadline := time.Now().Add(wiretest.Patience); !there(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("it does not come: %s", what)
			}
		}
	}

	t.Run("a direct method is not answered in time", func(t *testing.T) {
		c := wiretest.DialTLS(t, h.Hub)
		c.Connect(h.Device("d1"))
		c.Subscribe(0, "$iothub/methods/POST/#")
		called := make(chan error)
		go func() {
			_, err := h.InvokeMethod(t.Context(), hub.ID{Device: "d1"}, hub.MethodCall{Name: "sleep", ResponseTimeout: 5 * time.Minute})
			called <- err
		}()
		wiretest.Receive[*packets.PublishPacket](c)
		advance(t, 5*time.Minute)
		select {
		case err := <-called:
			if !errors.Is(err, hub.ErrGatewayTimeout) {
				t.Errorf("the call: %v", err)
			}
		case <-time.After(wiretest.Patience):
			t.Error("the call does not end")
		}
	})
	t.Run("a token expires, and with it a connection", func(t *testing.T) {
		c := wiretest.DialTLS(t, h.Hub)
		c.Connect(h.Device("d1")) // with a token for an hour of the machine's time
		advance(t, time.Hour+sas.Skew+time.Second)
		c.WantClosed()
	})
	t.Run("a message expires", func(t *testing.T) {
		wiretest.SendMessage(t, h.Node, "d2", hub.Message{Body: []byte("x"), Expires: h.Now().Add(time.Hour)})
		advance(t, 59*time.Minute)
		wiretest.WantPending(t, h.Node, "d2", 1)
		advance(t, time.Minute)
		await(t, "the end of a message", func() bool { return h.ConnectionState(hub.ID{Device: "d2"}).PendingMessages == 0 })
	})
	t.Run("a lock ends", func(t *testing.T) {
		wiretest.SendMessage(t, h.Node, "d3", wiretest.Message("x"))
		receive := func() bool {
			_, ok, err := h.ReceiveMessage("d3", 0)
			if err != nil {
				t.Fatal(err)
			}
			return ok
		}
		if !receive() || receive() {
			t.Fatal("a message is not locked by who receives it")
		}
		advance(t, time.Minute)
		await(t, "the message, once more", receive)
	})
	t.Run("a job starts", func(t *testing.T) {
		_, err := h.Jobs.Create(jobs.Spec{ID: "later", Type: jobs.Twin, Condition: "*", Start: h.Now().Add(time.Hour), Twin: &hub.TwinChange{Desired: []byte(`{"j":1}`)}})
		if err != nil {
			t.Fatal(err)
		}
		advance(t, time.Hour)
		wiretest.WaitJob(t, h.Node, "later")
	})
	t.Run("events are over", func(t *testing.T) {
		if len(wiretest.Events(t, h.Node, hub.EventQuery{})) == 0 {
			t.Fatal("there are none")
		}
		advance(t, 4*time.Hour)
		await(t, "the end of the events", func() bool { return len(wiretest.Events(t, h.Node, hub.EventQuery{})) == 0 })
	})
}
