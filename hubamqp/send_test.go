package hubamqp_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hubamqp"
	"github.com/iotdm/iotdm/sas"
)

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
