package hub_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
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

func TestMessagesReachTheDevice(t *testing.T) {
	h := hubtest.New(t)
	wiretest.EachTransport(t, h, func(t *testing.T, dial func() *wiretest.Client) {
		const device = "a+b#c$d%41"
		d := dial()
		d.Connect(h.Device(device))
		d.Subscribe(1, "devices/"+device+"/messages/devicebound/#")
		wiretest.SendMessage(t, h.Node, device, hub.Message{
			MessageID: "m-1", CorrelationID: "c-1", UserID: "u", ContentType: "application/json", ContentEncoding: "utf-8", Ack: hub.AckFull,
			Properties: []hub.Property{{Name: "prop1", Null: true}, {Name: "prop2"}, {Name: "prop3", Value: "a string/ü"}},
			Body:       []byte(`{"a":1}`),
		})
		p := d.WantMessage(`{"a":1}`)
		want := "devices/" + device + "/messages/devicebound/%24.mid=m-1&%24.to=%2Fdevices%2Fa%2Bb%23c%24d%2541%2Fmessages%2FdeviceBound" +
			"&%24.cid=c-1&%24.uid=u&%24.ct=application%2Fjson&%24.ce=utf-8&iothub-ack=full&prop1&prop2=&prop3=a%20string%2F%C3%BC"
		if p.TopicName != want {
			t.Errorf("topic %s\nwant  %s", p.TopicName, want)
		}
		wiretest.WantPending(t, h.Node, device, 1)
		d.Acknowledge(p)
		d.Settled()
		wiretest.WantPending(t, h.Node, device, 0)

		wiretest.SendMessage(t, h.Node, device, wiretest.Message(""))
		p = d.WantMessage("")
		if want := "devices/" + device + "/messages/devicebound/%24.to=%2Fdevices%2Fa%2Bb%23c%24d%2541%2Fmessages%2FdeviceBound"; p.TopicName != want {
			t.Errorf("topic %s\nwant  %s", p.TopicName, want)
		}
		d.Acknowledge(p)
		d.Settled()
	})
}

func TestMessagesWaitForTheDevice(t *testing.T) {
	h := hubtest.New(t)
	cs := h.Device("d1")
	for i := range 3 {
		wiretest.SendMessage(t, h.Node, "d1", wiretest.Message(fmt.Sprint(i)))
	}
	wiretest.WantPending(t, h.Node, "d1", 3)

	d := wiretest.DialTLS(t, h)
	d.Connect(cs)
	d.Settled() // and nothing comes before the subscription
	d.Subscribe(1, "devices/d1/messages/devicebound/#")
	for i := range 3 {
		p := d.WantMessage(fmt.Sprint(i))
		if i == 1 {
			d.Acknowledge(p)
		}
	}
	d.Settled()
	d.Disconnect()

	// The session's subscription is enough: what was not acknowledged comes
	// again right after CONNACK, and before what is new.
	wiretest.SendMessage(t, h.Node, "d1", wiretest.Message("3"))
	d = wiretest.DialTLS(t, h)
	if !d.Connect(cs) {
		t.Error("no session is present")
	}
	var seen []*packets.PublishPacket
	for _, body := range []string{"0", "2", "3"} {
		seen = append(seen, d.WantMessage(body))
	}
	for _, p := range seen {
		d.Acknowledge(p)
	}
	d.Settled()
	wiretest.WantPending(t, h.Node, "d1", 0)

	d.Send(&packets.UnsubscribePacket{FixedHeader: packets.FixedHeader{MessageType: packets.Unsubscribe, Qos: 1}, MessageID: 10, Topics: []string{"devices/d1/messages/devicebound/#"}})
	wiretest.Receive[*packets.UnsubackPacket](d)
	wiretest.SendMessage(t, h.Node, "d1", wiretest.Message("4"))
	d.Settled()
	wiretest.WantPending(t, h.Node, "d1", 1)
}

func TestMessagesGoOnWithTheConnectionThatTakesOver(t *testing.T) {
	h := hubtest.New(t)
	cs := h.Device("d1")
	first := wiretest.DialTLS(t, h)
	first.Connect(cs)
	first.Subscribe(1, "devices/d1/messages/devicebound/#")
	wiretest.SendMessage(t, h.Node, "d1", wiretest.Message("1"))
	first.WantMessage("1")
	second := wiretest.DialTLS(t, h)
	second.Connect(cs)
	second.Acknowledge(second.WantMessage("1"))
	second.Settled()
	wiretest.WantPending(t, h.Node, "d1", 0)
}

func TestQoS0CompletesBySending(t *testing.T) {
	h := hubtest.New(t)
	cs := h.Device("d1")
	for i := range 20 {
		wiretest.SendMessage(t, h.Node, "d1", wiretest.Message(fmt.Sprint(i)))
	}
	d := wiretest.DialTLS(t, h)
	d.Connect(cs)
	d.Subscribe(0, "devices/d1/messages/devicebound/#")
	for i := range 20 {
		if p := wiretest.Receive[*packets.PublishPacket](d); string(p.Payload) != fmt.Sprint(i) || p.Qos != 0 {
			t.Fatalf("got QoS %d %s, want QoS 0 %d", p.Qos, p.Payload, i)
		}
	}
	d.Settled()
	wiretest.WantPending(t, h.Node, "d1", 0)
}

func TestAnUnacknowledgedMessageComesAgainAfterAMinute(t *testing.T) {
	now := clock.New()
	h := hubtest.New(t, hubtest.WithOptions(node.Options{Clock: now}))
	d := wiretest.DialTLS(t, h)
	d.Connect(h.Device("d1"))
	d.Subscribe(1, "devices/d1/messages/devicebound/#")
	wiretest.SendMessage(t, h.Node, "d1", wiretest.Message("1"))
	first := d.WantMessage("1")
	now.Advance(59 * time.Second)
	h.SweepQueues()
	d.Settled()
	now.Advance(time.Second)
	h.SweepQueues()
	second := d.WantMessage("1")
	if first.MessageID == second.MessageID {
		t.Error("the packet identifier is the same")
	}
	d.Acknowledge(first) // too late
	d.Settled()
	wiretest.WantPending(t, h.Node, "d1", 1)
	d.Acknowledge(second)
	d.Settled()
	wiretest.WantPending(t, h.Node, "d1", 0)
}

func TestSixteenMessagesAreUnderWayAtMost(t *testing.T) {
	h := hubtest.New(t)
	d := wiretest.DialTLS(t, h)
	d.Connect(h.Device("d1"))
	d.Subscribe(1, "devices/d1/messages/devicebound/#")
	for i := range 20 {
		wiretest.SendMessage(t, h.Node, "d1", wiretest.Message(fmt.Sprint(i)))
	}
	var seen []*packets.PublishPacket
	for i := range 16 {
		seen = append(seen, d.WantMessage(fmt.Sprint(i)))
	}
	d.Settled() // and no seventeenth
	for i := range 4 {
		d.Acknowledge(seen[i])
		seen = append(seen, d.WantMessage(fmt.Sprint(16+i)))
	}
	for _, p := range seen[4:] {
		d.Acknowledge(p)
	}
	d.Settled()
	wiretest.WantPending(t, h.Node, "d1", 0)
}

func TestMessagesThatAreRefused(t *testing.T) {
	h := hubtest.New(t)
	h.Device("d1")
	largest := hub.Message{MessageID: "1", Properties: []hub.Property{{Name: "ab", Value: "c"}}, Body: make([]byte, 64<<10-4)}
	wiretest.SendMessage(t, h.Node, "d1", largest)
	tooLarge := largest
	tooLarge.CorrelationID = "x"
	for name, tt := range map[string]struct {
		device string
		m      hub.Message
		want   error
	}{
		"for no device":                          {device: "none", want: hub.ErrDeviceNotFound},
		"too large":                              {device: "d1", m: tooLarge, want: hub.ErrMessageTooLarge},
		"with an ack that does not exist":        {device: "d1", m: hub.Message{Ack: "Full"}, want: hub.ErrArgumentInvalid},
		"with a message id of other characters":  {device: "d1", m: hub.Message{MessageID: "a b"}, want: hub.ErrArgumentInvalid},
		"with a message id that is too long":     {device: "d1", m: hub.Message{MessageID: strings.Repeat("x", 129)}, want: hub.ErrArgumentInvalid},
		"with a property without a name":         {device: "d1", m: hub.Message{Properties: []hub.Property{{Value: "x"}}}, want: hub.ErrArgumentInvalid},
		"with a property like a system property": {device: "d1", m: hub.Message{Properties: []hub.Property{{Name: "$.to"}}}, want: hub.ErrArgumentInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			if err := h.SendMessage(tt.device, tt.m); !errors.Is(err, tt.want) {
				t.Errorf("SendMessage: %v, want %v", err, tt.want)
			}
		})
	}
	for i := range 49 {
		wiretest.SendMessage(t, h.Node, "d1", wiretest.Message(fmt.Sprint(i)))
	}
	if err := h.SendMessage("d1", wiretest.Message("one too many")); !errors.Is(err, hub.ErrQueueFull) {
		t.Errorf("message 51: %v, want %v", err, hub.ErrQueueFull)
	}
	wiretest.WantPending(t, h.Node, "d1", 50)
	h.Device("d2")
	wiretest.SendMessage(t, h.Node, "d2", wiretest.Message("another device's queue has room"))
}

// receivedOf receives a message as a device does over HTTPS.
func receivedOf(t testing.TB, h *node.Node, device string) hub.ReceivedMessage {
	t.Helper()
	m, ok, err := h.ReceiveMessage(device, 0)
	if err != nil || !ok {
		t.Fatalf("ReceiveMessage: %v, %v", ok, err)
	}
	return m
}

func wantEmpty(t testing.TB, h *node.Node, device string) {
	t.Helper()
	if m, ok, err := h.ReceiveMessage(device, 0); ok || err != nil {
		t.Fatalf("ReceiveMessage: %+v, %v, want none", m, err)
	}
}

// The hub drops a message after an hour unless its sender said otherwise. The
// device is told of what the sender said only.
func TestTheExpiryOfAMessage(t *testing.T) {
	start := time.Date(2026, 3, 14, 9, 26, 53, 0, time.UTC)
	for name, tt := range map[string]struct {
		expires, told time.Time
		lives         time.Duration
	}{
		"none":      {time.Time{}, time.Time{}, time.Hour},
		"in a week": {start.Add(7 * 24 * time.Hour), start.Add(48 * time.Hour), 48 * time.Hour},
		"soon":      {start.Add(time.Minute), start.Add(time.Minute), time.Minute},
		"long ago":  {time.Date(1900, 1, 1, 0, 0, 0, 0, time.UTC), time.Unix(0, 1), 0},
	} {
		t.Run(name, func(t *testing.T) {
			now := clock.Stopped(start)
			h := wiretest.NewNode(t, node.Options{Clock: now})
			wiretest.Create(t, h, hub.ID{Device: "d1"}, hub.IdentitySpec{})
			wiretest.SendMessage(t, h, "d1", hub.Message{Expires: tt.expires, Ack: hub.AckFull, MessageID: "m"})
			if tt.lives > 0 {
				m := receivedOf(t, h, "d1")
				if !m.Expires.Equal(tt.told) {
					t.Errorf("the device is told %v, want %v", m.Expires, tt.told)
				}
				if err := h.AbandonMessage("d1", m.LockToken); err != nil {
					t.Fatal(err)
				}
				now.Advance(tt.lives - time.Second)
				h.SweepQueues()
				wiretest.WantPending(t, h, "d1", 1)
				now.Advance(time.Second)
			}
			h.SweepQueues()
			wiretest.WantPending(t, h, "d1", 0)
			batch, _, err := h.ReceiveFeedback()
			if tt.lives == 0 {
				return // of that time nobody asks any more
			}
			if err != nil || len(batch.Records) != 1 || !batch.Records[0].EnqueuedTime.Equal(start.Add(tt.lives)) {
				t.Errorf("feedback %+v, %v, want of %v", batch.Records, err, start.Add(tt.lives))
			}
		})
	}
}

func TestMessagesAreSettledByTheirLocks(t *testing.T) {
	now := clock.New()
	h := wiretest.NewNode(t, node.Options{Clock: now})
	wiretest.Create(t, h, hub.ID{Device: "d1"}, hub.IdentitySpec{})
	wantEmpty(t, h, "d1")
	for i := range 3 {
		wiretest.SendMessage(t, h, "d1", hub.Message{MessageID: fmt.Sprint(i), Body: []byte("x"), Properties: []hub.Property{{Name: "a", Value: "b"}}})
	}
	first, second := receivedOf(t, h, "d1"), receivedOf(t, h, "d1")
	want := hub.ReceivedMessage{
		Message:  hub.Message{MessageID: "0", Properties: []hub.Property{{Name: "a", Value: "b"}}, Body: []byte("x")},
		Sequence: 1,
	}
	if diff := cmp.Diff(want, first, cmpopts.IgnoreFields(hub.ReceivedMessage{}, "LockToken", "Enqueued")); diff != "" {
		t.Errorf("first message (-want +got):\n%s", diff)
	}
	if err := h.AbandonMessage("d1", first.LockToken); err != nil {
		t.Fatal(err)
	}
	again := receivedOf(t, h, "d1")
	if again.MessageID != "0" || again.Deliveries != 1 {
		t.Errorf("after abandon comes %s with %d deliveries, want 0 with 1", again.MessageID, again.Deliveries)
	}
	if err := h.CompleteMessage("d1", first.LockToken); !errors.Is(err, hub.ErrMessageLockLost) {
		t.Errorf("completing with a lock that has ended: %v, want %v", err, hub.ErrMessageLockLost)
	}
	if err := h.CompleteMessage("d1", again.LockToken); err != nil {
		t.Fatal(err)
	}
	if err := h.RejectMessage("d1", second.LockToken); err != nil {
		t.Fatal(err)
	}
	if err := h.RejectMessage("d1", second.LockToken); !errors.Is(err, hub.ErrMessageLockLost) {
		t.Errorf("rejecting twice: %v, want %v", err, hub.ErrMessageLockLost)
	}
	third := receivedOf(t, h, "d1")
	wantEmpty(t, h, "d1")
	wiretest.WantPending(t, h, "d1", 1)
	now.Advance(61 * time.Second)
	h.SweepQueues()
	if again := receivedOf(t, h, "d1"); again.MessageID != third.MessageID || again.Deliveries != 0 {
		t.Errorf("after its lock ended comes %s with %d deliveries, want %s with 0", again.MessageID, again.Deliveries, third.MessageID)
	}
}

func TestQueuesSurviveARestart(t *testing.T) {
	dir := t.TempDir()
	h, err := node.New(node.Options{Storage: node.Folder(dir)})
	if err != nil {
		t.Fatal(err)
	}
	wiretest.Create(t, h, hub.ID{Device: "d1"}, hub.IdentitySpec{})
	for i := range 4 {
		wiretest.SendMessage(t, h, "d1", hub.Message{MessageID: fmt.Sprint(i), Ack: hub.AckFull})
	}
	if err := h.CompleteMessage("d1", receivedOf(t, h, "d1").LockToken); err != nil {
		t.Fatal(err)
	}
	if err := h.AbandonMessage("d1", receivedOf(t, h, "d1").LockToken); err != nil {
		t.Fatal(err)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}

	h = wiretest.NewNode(t, node.Options{Storage: node.Folder(dir)})
	wiretest.WantPending(t, h, "d1", 3)
	wiretest.SendMessage(t, h, "d1", hub.Message{MessageID: "4"})
	for i := range 4 {
		m := receivedOf(t, h, "d1")
		deliveries := 0
		if i == 0 {
			deliveries = 1
		}
		if m.MessageID != fmt.Sprint(i+1) || m.Sequence != uint64(i+2) || m.Deliveries != deliveries {
			t.Errorf("message %s, number %d, %d deliveries; want message %d, number %d", m.MessageID, m.Sequence, m.Deliveries, i+1, i+2)
		}
	}
	if diff := cmp.Diff(map[string]string{"0": "Success"}, feedbackOf(t, h)); diff != "" {
		t.Errorf("feedback (-want +got):\n%s", diff)
	}
	if err := h.DeleteIdentity(hub.ID{Device: "d1"}, hub.Match{}); err != nil {
		t.Fatal(err)
	}
	wiretest.Create(t, h, hub.ID{Device: "d1"}, hub.IdentitySpec{})
	wantEmpty(t, h, "d1")
	wiretest.WantPending(t, h, "d1", 0)
}

// TestMessagesKeepTheirOrderWhateverHappens has a device that now and then goes
// and comes back, and does not always acknowledge.
func TestMessagesKeepTheirOrderWhateverHappens(t *testing.T) {
	h := hubtest.New(t)
	const devices, messages = 4, 120
	var wg sync.WaitGroup
	for n := range devices {
		device := fmt.Sprint("d", n)
		cs := h.Device(device)
		wg.Go(func() {
			for i := range messages {
				for {
					err := h.SendMessage(device, hub.Message{MessageID: fmt.Sprint(i), Body: []byte(fmt.Sprint(i))})
					if errors.Is(err, hub.ErrQueueFull) {
						continue
					}
					if err != nil {
						t.Error(err)
					}
					break
				}
			}
		})
		wg.Go(func() {
			done := make([]bool, messages)
			left := messages
			for connections := 0; left > 0; connections++ {
				d := wiretest.DialTLS(t, h)
				d.Connect(cs)
				if connections == 0 {
					d.Subscribe(1, "devices/"+device+"/messages/devicebound/#")
				}
				last := -1
				for taken := 0; left > 0 && taken < 20+n; taken++ {
					p := wiretest.Receive[*packets.PublishPacket](d)
					var i int
					if err := json.Unmarshal(p.Payload, &i); err != nil {
						t.Error(err)
						return
					}
					if i <= last || done[i] {
						t.Errorf("%s gets message %d after %d, acknowledged: %v", device, i, last, done[i])
					}
					last = i
					if taken >= 18 {
						continue // not acknowledged
					}
					d.Acknowledge(p)
					done[i] = true
					left--
				}
				d.SettledAmid()
				d.Close()
			}
		})
	}
	wg.Wait()
	for n := range devices {
		wiretest.WantPending(t, h.Node, fmt.Sprint("d", n), 0)
	}
}
