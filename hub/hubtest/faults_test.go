package hubtest_test

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/Azure/go-amqp"
	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/fault"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/journal"
	"github.com/iotdm/iotdm/hub/node"
)

// late is the latency of the tests: so long that what is not late does not take it.
const late = 300 * time.Millisecond

// wantLate checks that f takes the latency.
func wantLate(t *testing.T, f func()) {
	t.Helper()
	begun := time.Now()
	f()
	if took := time.Since(begun); took < late {
		t.Errorf("it took %v, want %v or more", took, late)
	}
}

const d1Events = "devices/d1/messages/events/"

func TestFaultsOverMQTT(t *testing.T) {
	h := hubtest.New(t)
	cs := h.Device("d1")
	connack := func(t *testing.T) byte {
		t.Helper()
		c := wiretest.DialTLS(t, h)
		c.Send(wiretest.ConnectPacket(t, cs))
		return wiretest.Receive[*packets.ConnackPacket](c).ReturnCode
	}
	connect := func(t *testing.T) *wiretest.Client {
		t.Helper()
		c := wiretest.DialTLS(t, h)
		c.Connect(cs, wiretest.CleanSession)
		return c
	}
	wantConnack := func(code byte) func(*testing.T, func()) {
		return func(t *testing.T, add func()) {
			add()
			if got := connack(t); got != code {
				t.Errorf("CONNACK %d, want %d", got, code)
			}
		}
	}
	getTwin := func(c *wiretest.Client) {
		c.Send(wiretest.PublishPacket(0, 0, "$iothub/twin/GET/?$rid=7", ""))
	}
	for name, tt := range map[string]struct {
		fault fault.Fault
		check func(t *testing.T, add func())
	}{
		"connection, refused": {fault.Fault{On: fault.Connection, Refuse: true}, wantConnack(packets.ErrRefusedNotAuthorised)},
		"connection, 503":     {fault.Fault{On: fault.Connection, Status: 503}, wantConnack(packets.ErrRefusedServerUnavailable)},
		"connection, 404":     {fault.Fault{On: fault.Connection, Status: 404}, wantConnack(packets.ErrRefusedNotAuthorised)},
		"connection, 429":     {fault.Fault{On: fault.Connection, Status: 429}, wantConnack(packets.ErrRefusedServerUnavailable)},
		"connection, late":    {fault.Fault{On: fault.Connection, Latency: late}, func(t *testing.T, add func()) { add(); wantLate(t, func() { connect(t) }) }},
		"connection, dropped": {fault.Fault{On: fault.Connection, Drop: true}, func(t *testing.T, add func()) { c := connect(t); add(); c.WantClosed() }},
		"a connection to come, dropped": {fault.Fault{On: fault.Connection, Drop: true, Device: "newcomer"}, func(t *testing.T, add func()) {
			add()
			c := wiretest.DialTLS(t, h)
			c.Send(wiretest.ConnectPacket(t, h.Device("newcomer")))
			c.WantClosed()
		}},
		"telemetry, late": {fault.Fault{On: fault.Telemetry, Latency: late}, func(t *testing.T, add func()) {
			c := connect(t)
			add()
			c.Send(wiretest.PublishPacket(1, 1, d1Events, "late"), wiretest.PublishPacket(2, 1, d1Events, "behind"))
			c.Settled() // others are answered meanwhile
			wantLate := time.Now().Add(late / 2)
			for id := range uint16(2) {
				if ack := wiretest.Receive[*packets.PubackPacket](c); ack.MessageID != id+1 {
					t.Errorf("PUBACK for %d, want %d", ack.MessageID, id+1)
				}
			}
			if time.Now().Before(wantLate) {
				t.Error("the acknowledgement is not late")
			}
		}},
		"telemetry, dropped": {fault.Fault{On: fault.Telemetry, Drop: true}, func(t *testing.T, add func()) {
			c := connect(t)
			add()
			c.Send(wiretest.PublishPacket(1, 1, d1Events, "lost"))
			c.Send(wiretest.PublishPacket(2, 1, d1Events, "kept"))
			if ack := wiretest.Receive[*packets.PubackPacket](c); ack.MessageID != 2 {
				t.Errorf("PUBACK for %d, want 2", ack.MessageID)
			}
		}},
		"telemetry, 429": {fault.Fault{On: fault.Telemetry, Status: 429}, func(t *testing.T, add func()) {
			c := connect(t)
			add()
			c.Send(wiretest.PublishPacket(1, 1, d1Events, "too much"))
			c.WantClosed()
		}},
		"twin, 429": {fault.Fault{On: fault.Twin, Status: 429}, func(t *testing.T, add func()) {
			c := connect(t)
			add()
			getTwin(c)
			if p := wiretest.Receive[*packets.PublishPacket](c); p.TopicName != "$iothub/twin/res/429/?$rid=7" {
				t.Errorf("the answer is on %s", p.TopicName)
			}
		}},
		"twin, dropped": {fault.Fault{On: fault.Twin, Drop: true}, func(t *testing.T, add func()) {
			c := connect(t)
			add()
			getTwin(c)
			c.Settled()
		}},
		"twin, late": {fault.Fault{On: fault.Twin, Latency: late}, func(t *testing.T, add func()) {
			c := connect(t)
			add()
			wantLate(t, func() {
				getTwin(c)
				c.Settled()
				if p := wiretest.Receive[*packets.PublishPacket](c); p.TopicName != "$iothub/twin/res/200/?$rid=7" {
					t.Errorf("the answer is on %s", p.TopicName)
				}
			})
		}},
		"message, late": {fault.Fault{On: fault.Message, Latency: late}, func(t *testing.T, add func()) {
			c := connect(t)
			c.Subscribe(1, "devices/d1/messages/devicebound/#")
			add()
			wantLate(t, func() {
				wiretest.SendMessage(t, h.Node, "d1", wiretest.Message("late"))
				wiretest.SendMessage(t, h.Node, "d1", wiretest.Message("behind"))
				c.Acknowledge(c.WantMessage("late"))
				c.Acknowledge(c.WantMessage("behind"))
			})
			c.Settled()
		}},
		"message, dropped": {fault.Fault{On: fault.Message, Drop: true}, func(t *testing.T, add func()) {
			c := connect(t)
			c.Subscribe(1, "devices/d1/messages/devicebound/#")
			add()
			wiretest.SendMessage(t, h.Node, "d1", wiretest.Message("lost"))
			wiretest.SendMessage(t, h.Node, "d1", wiretest.Message("kept"))
			c.Acknowledge(c.WantMessage("kept"))
			c.Settled()
			wiretest.WantPending(t, h.Node, "d1", 1)
			h.Clock().Advance(2 * time.Minute) // its lock ends
			c.Acknowledge(c.WantMessage("lost"))
			c.Settled()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			tt.fault.Device, tt.fault.Count = cmp.Or(tt.fault.Device, "d1"), 1
			var a fault.Active
			tt.check(t, func() { a = h.Fault(tt.fault) })
			for _, now := range h.Faults() {
				if now.ID == a.ID && now.Struck != 1 {
					t.Errorf("it struck %d times, want once", now.Struck)
				}
			}
			h.ClearFaults()
			connect(t).Publish(d1Events, "all is well again")
		})
	}
}

// A peer that asks for ever more, while a fault keeps the answers back, loses its
// connection and not the hub's memory.
func TestAFaultKeepsBackNoMoreThanAConnectionMayHave(t *testing.T) {
	h := hubtest.New(t)
	c := wiretest.DialTLS(t, h)
	c.Connect(h.Device("d1"), wiretest.CleanSession)
	desired := make(map[string]string)
	for n := range 7 {
		desired[fmt.Sprint("p", n)] = strings.Repeat("x", 4000)
	}
	text, err := json.Marshal(desired)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.PatchTwin(hub.ID{Device: "d1"}, hub.TwinChange{Desired: text}, hub.Match{}); err != nil {
		t.Fatal(err)
	}
	h.Fault(fault.Fault{On: fault.Twin, Latency: fault.MaxLatency})
	for range 100 { // 2.8 MB of answers
		c.Send(wiretest.PublishPacket(0, 0, "$iothub/twin/GET/?$rid=7", ""))
	}
	c.WantClosed()
}

func TestFaultsOverAMQP(t *testing.T) {
	h := hubtest.New(t)
	cs := h.Device("d1")
	const events = "/devices/d1/messages/events"
	send := func(t *testing.T, s *amqp.Sender) error {
		return s.Send(wiretest.WithPatience(t), amqp.NewMessage([]byte("x")), nil)
	}
	condition := func(t *testing.T, err error, want amqp.ErrCond) {
		t.Helper()
		var refused *amqp.Error
		if !errors.As(err, &refused) || refused.Condition != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	fresh := func(t *testing.T) *amqp.Sender { return wiretest.DialAMQP(t, h, cs).Sender(events) }
	for status, want := range map[int]amqp.ErrCond{
		429: "com.microsoft:device-container-throttled", 403: "amqp:resource-limit-exceeded", 401: "amqp:unauthorized-access", 503: "amqp:internal-error",
	} {
		s := fresh(t)
		h.Fault(fault.Fault{On: fault.Telemetry, Status: status, Count: 1})
		condition(t, send(t, s), want)
		if err := send(t, s); err != nil {
			t.Errorf("behind %d: %v", status, err)
		}
	}
	s := fresh(t)
	h.Fault(fault.Fault{On: fault.Telemetry, Latency: late, Count: 1})
	wantLate(t, func() {
		if err := send(t, s); err != nil {
			t.Error(err)
		}
	})
	h.Fault(fault.Fault{On: fault.Connection, Drop: true, Count: 1})
	var gone *amqp.ConnError
	if err := send(t, s); !errors.As(err, &gone) {
		t.Errorf("on a connection that was dropped: %v", err)
	}
	c := wiretest.OpenAMQP(t, h, wiretest.DialAMQPTCP(t, h))
	audience, token := h.HostName+"/devices/d1", deviceToken(t, h, "d1")
	for _, f := range []fault.Fault{{On: fault.Connection, Refuse: true}, {On: fault.Connection, Status: 503}} {
		f.Count = 1
		h.Fault(f)
		want := int32(401)
		if f.Status != 0 {
			want = int32(f.Status)
		}
		if got := c.PutToken(audience, token); got != want {
			t.Errorf("put-token is answered with %d, want %d", got, want)
		}
	}
	h.Fault(fault.Fault{On: fault.Connection, Latency: late, Count: 1})
	wantLate(t, func() { c.Claim(audience, token) })
	if err := send(t, c.Sender(events)); err != nil {
		t.Error(err)
	}
	for _, a := range h.Faults() {
		if a.Struck != 1 {
			t.Errorf("%+v struck %d times, want once", a.Fault, a.Struck)
		}
	}
}

func TestFaultsOverHTTPS(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	h.Device("d1")
	device := wiretest.Call{Method: "POST", Path: "/devices/d1/messages/events?api-version=2021-04-12", Token: h.DeviceToken(hub.ID{Device: "d1"}), Body: "x"}
	service := wiretest.Call{Method: "GET", Path: "/twins/d1?api-version=2021-04-12", Token: h.Token("service")}
	for name, tt := range map[string]struct {
		fault fault.Fault
		call  wiretest.Call
		want  int // 0: no answer
	}{
		"a device's connection, refused": {fault.Fault{On: fault.Connection, Refuse: true}, device, 401},
		"a device's connection, dropped": {fault.Fault{On: fault.Connection, Drop: true}, device, 0},
		"telemetry, 429":                 {fault.Fault{On: fault.Telemetry, Status: 429, RetryAfter: 5 * time.Second}, device, 429},
		"telemetry, dropped":             {fault.Fault{On: fault.Telemetry, Drop: true}, device, 0},
		"telemetry, late":                {fault.Fault{On: fault.Telemetry, Latency: late}, device, 204},
		"a request, 503":                 {fault.Fault{On: fault.REST, Path: "twins/*", Status: 503, RetryAfter: 5 * time.Second}, service, 503},
		"a request, 401":                 {fault.Fault{On: fault.REST, Status: 401}, service, 401},
		"a request, dropped":             {fault.Fault{On: fault.REST, Device: "d1", Drop: true}, service, 0},
		"a request, late":                {fault.Fault{On: fault.REST, Latency: late}, service, 200},
	} {
		t.Run(name, func(t *testing.T) {
			tt.fault.Count = 1
			h.Fault(tt.fault)
			begun := time.Now()
			// What net/http repeats by itself on a new connection would strike twice.
			h.Client.CloseIdleConnections()
			a, err := h.Try(t.Context(), tt.call)
			switch {
			case tt.want == 0 && err == nil:
				t.Errorf("answered with %d, want no answer", a.Status)
			case tt.want != 0 && (err != nil || a.Status != tt.want):
				t.Errorf("answered with %d (%v), want %d", a.Status, err, tt.want)
			case tt.fault.RetryAfter > 0 && a.Header.Get("Retry-After") != "5":
				t.Errorf("Retry-After is %q", a.Header.Get("Retry-After"))
			case tt.fault.Latency > 0 && time.Since(begun) < late:
				t.Errorf("it took %v", time.Since(begun))
			}
			if a, err := h.Try(t.Context(), tt.call); err != nil || a.Status/100 != 2 {
				t.Errorf("behind it: %d, %v", a.Status, err)
			}
		})
	}
}

func TestFaultsOfMethods(t *testing.T) {
	h := hubtest.New(t)
	c := wiretest.DialTLS(t, h)
	c.Connect(h.Device("d1"))
	c.Subscribe(0, "$iothub/methods/POST/#")
	call := func() error {
		_, err := h.InvokeMethod(t.Context(), hub.ID{Device: "d1"}, hub.MethodCall{Name: "lockDoor", ResponseTimeout: 5 * time.Second})
		return err
	}
	answer := func() {
		p := wiretest.Receive[*packets.PublishPacket](c)
		c.Send(wiretest.PublishPacket(0, 0, "$iothub/methods/res/200/?$rid="+wiretest.RequestID(p), "{}"))
	}
	for status, want := range map[int]error{404: hub.ErrDeviceNotOnline, 504: hub.ErrGatewayTimeout, 429: hub.ErrThrottled} {
		h.Fault(fault.Fault{On: fault.Method, Device: "d1", Status: status, Count: 1})
		if err := call(); !errors.Is(err, want) {
			t.Errorf("%d: %v, want %v", status, err, want)
		}
	}
	h.Fault(fault.Fault{On: fault.Method, Latency: late, Count: 1})
	wantLate(t, func() {
		go answer()
		if err := call(); err != nil {
			t.Error(err)
		}
	})
	h.Fault(fault.Fault{On: fault.Method, Drop: true, Count: 1})
	lost := make(chan error)
	go func() { lost <- call() }()
	h.Await(journal.Filter{On: []journal.Kind{journal.Method}, What: journal.Called, Match: func(e journal.Entry) bool {
		return e.Number > 0 && len(h.Journal(journal.Filter{What: journal.Called})) == 5
	}})
	for range 100 { // the clock may be moved before the call waits for it
		h.Clock().Advance(time.Second)
		select {
		case err := <-lost:
			if !errors.Is(err, hub.ErrGatewayTimeout) {
				t.Errorf("a call that is lost: %v", err)
			}
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
	t.Error("a call that is lost does not end")
}

func TestAnExpiredCertificate(t *testing.T) {
	h := hubtest.New(t)
	dial := func() error {
		c, err := net.Dial("tcp", h.MQTTSAddr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return handshake(t, h, c)
	}
	h.Fault(fault.Fault{On: fault.TLS, ExpiredCertificate: true, Count: 1})
	var invalid x509.CertificateInvalidError
	if err := dial(); !errors.As(err, &invalid) || invalid.Reason != x509.Expired {
		t.Errorf("the handshake: %v, want an expired certificate", err)
	}
	if err := dial(); err != nil {
		t.Errorf("the next one: %v", err)
	}
}

func TestAConditionChoosesWhomAFaultStrikes(t *testing.T) {
	h := hubtest.New(t)
	north, south := h.Device("north"), h.Device("south")
	if _, err := h.PatchTwin(hub.ID{Device: "north"}, hub.TwinChange{Tags: []byte(`{"site":"north"}`)}, hub.Match{}); err != nil {
		t.Fatal(err)
	}
	a, b := wiretest.DialTLS(t, h), wiretest.DialTLS(t, h)
	a.Connect(north)
	b.Connect(south)
	if f := h.Fault(fault.Fault{On: fault.Connection, Drop: true, Where: "tags.site = 'north'"}); f.Struck != 1 {
		t.Errorf("it struck %d connections, want 1", f.Struck)
	}
	a.WantClosed()
	b.Publish("devices/south/messages/events/", "still there")
	h.Await(journal.Filter{Device: "north", On: []journal.Kind{journal.Connection}, What: journal.Disconnected})
}

func TestADeviceAsksForAFault(t *testing.T) {
	h := hubtest.New(t)
	cs := h.Device("d1")
	c := wiretest.DialTLS(t, h)
	c.Connect(cs)
	c.Publish(d1Events+"AzIoTHub_FaultOperationType=KillTcp&AzIoTHub_FaultOperationCloseReason=boom&AzIoTHub_FaultOperationDelayInSecs=0.1", "x")
	c.WantClosed()
	for kind, want := range map[fault.OperationType]amqp.ErrCond{
		fault.KillTelemetry: "amqp:link:detach-forced", fault.KillSession: "amqp:link:detach-forced", fault.KillConnection: "amqp:link:detach-forced",
		fault.InvokeThrottling: "com.microsoft:device-container-throttled", fault.InvokeQuota: "amqp:resource-limit-exceeded", fault.InvokeAuthError: "amqp:unauthorized-access",
	} {
		s := wiretest.DialAMQP(t, h, cs).Sender("/devices/d1/messages/events")
		m := amqp.NewMessage([]byte("x"))
		m.ApplicationProperties = map[string]any{fault.OperationTypeProperty: string(kind), fault.OperationDelayProperty: "0.01", fault.OperationDurationProperty: "60"}
		if err := s.Send(wiretest.WithPatience(t), m, nil); err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		var err error
		for deadline := time.Now().Add(wiretest.Patience); err == nil && time.Now().Before(deadline); {
			err = s.Send(wiretest.WithPatience(t), amqp.NewMessage([]byte("x")), nil)
		}
		var detached *amqp.LinkError
		var ended *amqp.SessionError
		var closed *amqp.ConnError
		var refused *amqp.Error
		switch {
		case errors.As(err, &detached):
			refused = detached.RemoteErr
		case errors.As(err, &ended):
			refused = ended.RemoteErr
		case errors.As(err, &closed):
			refused = closed.RemoteErr
		default:
			errors.As(err, &refused)
		}
		if refused == nil || refused.Condition != want {
			t.Errorf("%s: %v, want %s", kind, err, want)
		}
		h.ClearFaults()
	}
}

func deviceToken(t *testing.T, h *hubtest.Hub, device string) string {
	t.Helper()
	cs := h.Device(device)
	return wiretest.Sign(t, cs.Audience(), "", cs.SharedAccessKey, h.Now().Add(time.Hour))
}

func handshake(t *testing.T, h *hubtest.Hub, c net.Conn) error {
	t.Helper()
	config := h.ClientTLS()
	config.ServerName = h.HostName
	return tls.Client(c, config).HandshakeContext(t.Context())
}
