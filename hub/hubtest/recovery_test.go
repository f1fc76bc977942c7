package hubtest_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/fault"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/journal"
	"github.com/iotdm/iotdm/mqttdevice"
)

// Our own client comes back from whatever befalls its connection, with its
// subscriptions, over TCP and over WebSocket: it can be called and can send. All
// of them are away at the same time, since who was refused waits for seconds.
func TestOurClientRecovers(t *testing.T) {
	cut := fault.Fault{On: fault.Connection, Drop: true}
	var checks []func()
	for name, tt := range map[string]struct {
		faults []fault.Fault // the last of them ends the connection
		reason error         // why an attempt failed meanwhile; nil if none did
	}{
		"cut":             {faults: []fault.Fault{cut}},
		"cut again":       {faults: []fault.Fault{{On: fault.Connection, Drop: true, Count: 3}}},
		"refused":         {faults: []fault.Fault{{On: fault.Connection, Refuse: true}, cut}, reason: mqttdevice.ErrUnauthorized},
		"503":             {faults: []fault.Fault{{On: fault.Connection, Status: 503}, cut}, reason: mqttdevice.ErrBusy},
		"429":             {faults: []fault.Fault{{On: fault.Connection, Status: 429, Count: 2}, cut}, reason: mqttdevice.ErrBusy},
		"late":            {faults: []fault.Fault{{On: fault.Connection, Latency: late}, cut}},
		"bad certificate": {faults: []fault.Fault{{On: fault.TLS, ExpiredCertificate: true}, cut}, reason: x509.CertificateInvalidError{}},
	} {
		for _, transport := range []mqttdevice.Transport{mqttdevice.TCP, mqttdevice.WebSocket} {
			h, reasons := hubtest.New(t), make(chan error, 100)
			c := recovering(t, h, transport, reasons)
			for _, f := range tt.faults {
				f.Count = max(f.Count, 1)
				h.Fault(f)
			}
			checks = append(checks, func() {
				t.Run(fmt.Sprintf("%s over %v", name, transport), func(t *testing.T) {
					recovered(t, h, c)
					for _, a := range h.Faults() {
						if a.Struck != a.Count {
							t.Errorf("%+v struck %d times", a.Fault, a.Struck)
						}
					}
					wantReason(t, reasons, tt.reason)
				})
			})
		}
	}
	for _, check := range checks {
		check()
	}
}

func TestOurClientRecoversFromWhatItSends(t *testing.T) {
	send := func(c *mqttdevice.Client, properties map[string]string) error {
		return c.Send(t.Context(), mqttdevice.Message{Payload: []byte("x"), Properties: properties})
	}
	h := hubtest.New(t)
	c := recovering(t, h, mqttdevice.TCP, make(chan error, 100))
	if err := send(c, map[string]string{fault.OperationTypeProperty: string(fault.KillTCP)}); err != nil && !errors.Is(err, mqttdevice.ErrConnectionLost) {
		t.Fatal(err)
	}
	recovered(t, h, c)
	h = hubtest.New(t)
	c = recovering(t, h, mqttdevice.TCP, make(chan error, 100))
	h.Fault(fault.Fault{On: fault.Telemetry, Status: 429, Count: 1})
	if err := send(c, nil); !errors.Is(err, mqttdevice.ErrConnectionLost) {
		t.Errorf("a message on a connection that ends: %v", err)
	}
	recovered(t, h, c)
}

// recovering returns a client that is connected, and has it tell why it is not.
func recovering(t *testing.T, h *hubtest.Hub, transport mqttdevice.Transport, reasons chan<- error) *mqttdevice.Client {
	t.Helper()
	addr := h.MQTTSAddr
	if transport == mqttdevice.WebSocket {
		addr = h.HTTPSAddr
	}
	c, err := mqttdevice.New(mqttdevice.Options{
		ConnectionString: h.Device("d1"), Transport: transport, Addr: addr, TLS: h.ClientTLS(),
		OnState: func(s mqttdevice.State) {
			if s.Status == mqttdevice.Disconnected {
				reasons <- s.Reason
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.HandleMethod("ping", func(context.Context, mqttdevice.Method) mqttdevice.Response {
		return mqttdevice.Response{Status: 200}
	})
	if err := c.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

// recovered checks that the client connects a second time and is as before.
func recovered(t *testing.T, h *hubtest.Hub, c *mqttdevice.Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // it waits for up to ten seconds once it was refused
	defer cancel()
	connected := 0
	page := h.Server.Journal().Wait(ctx, journal.Filter{Device: "d1", On: []journal.Kind{journal.Connection}, What: journal.Connected, Match: func(journal.Entry) bool {
		connected++
		return connected == 2
	}}, 0, 1)
	if len(page.Entries) == 0 {
		t.Fatal("it does not connect again")
	}
	if err := c.Send(ctx, mqttdevice.Message{Payload: []byte("again")}); err != nil {
		t.Errorf("send: %v", err)
	}
	if r, err := h.InvokeMethod(ctx, hub.ID{Device: "d1"}, hub.MethodCall{Name: "ping", ConnectTimeout: 10 * time.Second}); err != nil || r.Status != 200 {
		t.Errorf("ping: %+v, %v", r, err)
	}
}

// wantReason checks that one of the reasons is want, unless that is nil.
func wantReason(t *testing.T, reasons chan error, want error) {
	t.Helper()
	var all []error
	for len(reasons) > 0 {
		all = append(all, <-reasons)
	}
	for _, r := range all {
		var expired x509.CertificateInvalidError
		if want == nil || errors.Is(r, want) || errors.As(want, &expired) && errors.As(r, &expired) {
			return
		}
	}
	t.Errorf("it was disconnected because of %v, want %v", all, want)
}
