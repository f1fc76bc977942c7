package amqp

import (
	"context"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
)

const methodsOfD1 = "/devices/d1/methods/devicebound"

// paired makes an attach one of a pair.
func paired(key string) func(*wire.Attach) {
	return func(a *wire.Attach) {
		a.Properties = append(a.Properties, wire.Entry{Key: wire.Symbol("com.microsoft:channel-correlation-id"), Value: key})
	}
}

// methodLinks attaches both links of direct methods, ready to take some.
func (p *devicePeer) methodLinks(change ...func(*wire.Attach)) (out, in *peerLink) {
	p.t.Helper()
	out = p.attach(wire.Sender, methodsOfD1, change...)
	in = p.attach(wire.Receiver, methodsOfD1, change...)
	p.flow(in, 100)
	p.sync()
	return out, in
}

// A called is what came of a direct method.
type called struct {
	hub.MethodResult
	err error
}

// call calls a direct method of d1, which has to connect within some seconds.
func call(t testing.TB, h *testHub, payload string) <-chan called {
	done := make(chan called, 1)
	go func() {
		r, err := h.InvokeMethod(t.Context(), d1, hub.MethodCall{Name: "reboot", Payload: []byte(payload), ConnectTimeout: 20 * 1e9})
		done <- called{r, err}
	}()
	return done
}

func methodReply(m received, id any, status any, body string) *wire.Message {
	return &wire.Message{
		Properties:            &wire.Properties{CorrelationID: id},
		ApplicationProperties: wire.Map{{Key: "IoThub-status", Value: status}},
		Data:                  [][]byte{[]byte(body)},
	}
}

func TestMethod(t *testing.T) {
	for name, tt := range map[string]struct {
		correlation func(wire.UUID) any
		status      any
		body        string
		want        called
	}{
		"its id as a uuid":       {func(id wire.UUID) any { return id }, int32(200), `{"ok":1}`, called{hub.MethodResult{Status: 200, Payload: []byte(`{"ok":1}`)}, nil}},
		"its id as text":         {func(id wire.UUID) any { return textOfUUID(id) }, int32(404), `"no"`, called{hub.MethodResult{Status: 404, Payload: []byte(`"no"`)}, nil}},
		"its id as capitals":     {func(id wire.UUID) any { return strings.ToUpper(textOfUUID(id)) }, int64(-1), ``, called{hub.MethodResult{Status: -1, Payload: []byte(`null`)}, nil}},
		"its id as bytes":        {func(id wire.UUID) any { return id[:] }, uint8(201), `1`, called{hub.MethodResult{Status: 201, Payload: []byte(`1`)}, nil}},
		"a status as text":       {func(id wire.UUID) any { return id }, "202", `1`, called{hub.MethodResult{Status: 202, Payload: []byte(`1`)}, nil}},
		"a status too large":     {func(id wire.UUID) any { return id }, int64(1) << 40, `1`, called{err: hub.ErrBadDeviceResponse}},
		"no status":              {func(id wire.UUID) any { return id }, nil, `1`, called{err: hub.ErrBadDeviceResponse}},
		"a body that is no JSON": {func(id wire.UUID) any { return id }, int32(200), `{'a'`, called{hub.MethodResult{Status: 200, Payload: []byte(`{'a'`), NotJSON: true}, nil}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newTestHub(t)
			h.create(d1)
			p := h.dialAs(d1)
			out, in := p.methodLinks(paired("methods:1"))
			done := call(t, h, `{"delay":5}`)
			got := p.receive(in)
			id, ok := got.Properties.CorrelationID.(wire.UUID)
			if !ok {
				t.Fatalf("the correlation id is %#v, want a uuid", got.Properties.CorrelationID)
			}
			want := &wire.Message{
				Properties: &wire.Properties{CorrelationID: id}, ApplicationProperties: wire.Map{{Key: "IoThub-methodname", Value: "reboot"}},
				Data: [][]byte{[]byte(`{"delay":5}`)},
			}
			if diff := cmp.Diff(want, got.Message); diff != "" {
				t.Errorf("method (-want +got):\n%s", diff)
			}
			p.accepted(p.transfer(out, methodReply(got, tt.correlation(id), tt.status, tt.body)))
			r := <-done
			if !errors.Is(r.err, tt.want.err) {
				t.Errorf("the call ends with %v, want %v", r.err, tt.want.err)
			}
			if diff := cmp.Diff(tt.want.MethodResult, r.MethodResult); diff != "" {
				t.Errorf("result (-want +got):\n%s", diff)
			}
		})
	}
}

func textOfUUID(id wire.UUID) string {
	s := hex.EncodeToString(id[:])
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}

// A call without a payload comes with a body that is there and empty: Node reads
// it, .NET does.
func TestMethodWithoutPayload(t *testing.T) {
	h := newTestHub(t)
	h.create(d1)
	p := h.dialAs(d1)
	out, in := p.methodLinks()
	done := call(t, h, "")
	got := p.receive(in)
	if len(got.Data) != 1 || len(got.Data[0]) != 0 {
		t.Errorf("the body is %q", got.Data)
	}
	p.accepted(p.transfer(out, methodReply(got, got.Properties.CorrelationID, int32(200), "")))
	if r := <-done; r.err != nil {
		t.Error(r.err)
	}
}

// Methods are settled when they are sent, unless the device wants to settle them
// itself.
func TestSettleModesOfMethods(t *testing.T) {
	for mode, want := range map[uint8]bool{wire.SndUnsettled: false, wire.SndSettled: true, wire.SndMixed: true} {
		h := newTestHub(t)
		h.create(d1)
		p := h.dialAs(d1)
		out, in := p.methodLinks(func(a *wire.Attach) { a.SndSettleMode = &mode })
		done := call(t, h, "1")
		got := p.receive(in)
		if settled := got.Settled != nil && *got.Settled; settled != want {
			t.Errorf("mode %d: settled %v, want %v", mode, settled, want)
		}
		p.transfer(out, methodReply(got, got.Properties.CorrelationID, int32(200), ""))
		if r := <-done; r.err != nil {
			t.Error(r.err)
		}
		if !want {
			p.settle(got, true, wire.Accepted{})
			p.sync()
		}
	}
}

func TestMethodsNeedBothLinksAndCredit(t *testing.T) {
	h := newTestHub(t)
	h.create(d1)
	p := h.dialAs(d1)
	takes := func(want bool) {
		t.Helper()
		p.sync()
		if got := h.Link(d1).TakesMethod("m"); got != want {
			t.Errorf("takes methods: %v, want %v", got, want)
		}
	}
	in := p.attach(wire.Receiver, methodsOfD1, paired("a"))
	p.flow(in, 10)
	takes(false)
	other := p.attach(wire.Sender, methodsOfD1, paired("b"))
	takes(false)
	out := p.attach(wire.Sender, methodsOfD1, paired("a"))
	takes(true)
	p.detach(other)
	takes(true)
	p.detach(in)
	takes(false)
	in = p.attach(wire.Receiver, methodsOfD1, paired("a"))
	takes(false)
	waiting := call(t, h, "1") // until there is credit
	p.flow(in, 1)
	got := p.receive(in)
	takes(false)
	p.transfer(out, methodReply(got, got.Properties.CorrelationID, int32(200), ""))
	if r := <-waiting; r.err != nil {
		t.Error(r.err)
	}
}

func TestMethodWhoseDeviceGoes(t *testing.T) {
	for name, end := range map[string]func(p *devicePeer, out, in *peerLink){
		"the connection is lost":        func(p *devicePeer, _, _ *peerLink) { p.nc.Close() },
		"the link of calls is detached": func(p *devicePeer, _, in *peerLink) { p.detach(in) },
		"the link of answers is":        func(p *devicePeer, out, _ *peerLink) { p.detach(out) },
		"the credential is revoked": func(p *devicePeer, _, _ *peerLink) {
			if err := p.hub.DeleteIdentity(d1, hub.Match{}); err != nil {
				p.t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newTestHub(t)
			h.create(d1)
			p := h.dialAs(d1)
			p.attach(wire.Sender, "/devices/d1/messages/events")
			out, in := p.methodLinks()
			done := call(t, h, "1")
			p.receive(in)
			end(p, out, in)
			if r := <-done; !errors.Is(r.err, hub.ErrDeviceNotOnline) {
				t.Errorf("the call ends with %v, want %v", r.err, hub.ErrDeviceNotOnline)
			}
		})
	}
}

func TestTooManyMethods(t *testing.T) {
	h := newTestHub(t)
	h.create(d1)
	p := h.dialAs(d1)
	_, in := p.methodLinks()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range hub.MaxMethodCalls {
		go h.InvokeMethod(ctx, d1, hub.MethodCall{Name: "m"})
		p.receive(in)
	}
	if _, err := h.InvokeMethod(ctx, d1, hub.MethodCall{Name: "m"}); !errors.Is(err, hub.ErrTooManyMethodCalls) {
		t.Errorf("one more: %v, want %v", err, hub.ErrTooManyMethodCalls)
	}
}

func TestAnswersThatAreNone(t *testing.T) {
	h := newTestHub(t)
	h.create(d1)
	p := h.dialAs(d1)
	out, in := p.methodLinks()
	p.rejected(p.transferRaw(out, []byte("no message")), condDecode)
	p.rejected(p.transfer(out, &wire.Message{}), condArgument)
	p.rejected(p.transfer(out, methodReply(received{}, "x", int32(200), "")), condArgument)
	p.accepted(p.transfer(out, methodReply(received{}, wire.UUID{1}, int32(200), ""))) // of a call that has gone
	done := call(t, h, "1")
	got := p.receive(in)
	for range 2 { // the first counts
		p.accepted(p.transfer(out, methodReply(got, got.Properties.CorrelationID, int32(200), "")))
	}
	if r := <-done; r.err != nil {
		t.Error(r.err)
	}
}
