package amqp_test

import (
	"crypto/tls"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
)

// A logged is a log that a test reads.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
	more chan struct{}
}

func newLog() *logged { return &logged{more: make(chan struct{}, 1)} }

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case l.more <- struct{}{}:
	default:
	}
	return l.text.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// want waits for a line with all the words.
func (l *logged) want(t testing.TB, words ...string) {
	t.Helper()
	late := time.After(wiretest.Patience)
	for {
		for line := range strings.Lines(l.String()) {
			all := true
			for _, w := range words {
				all = all && strings.Contains(line, w)
			}
			if all {
				return
			}
		}
		select {
		case <-l.more:
		case <-late:
			t.Fatalf("no line with %q in\n%s", words, l)
		}
	}
}

func withLog(l *logged) hubtest.Option {
	return hubtest.WithOptions(node.Options{Logger: slog.New(slog.NewTextHandler(l, nil))})
}

func TestSASLOffersItsMechanisms(t *testing.T) {
	h := hubtest.New(t)
	p := dialPeer(t, h)
	// Java's client sends all of its part before it has read anything.
	p.SendBytes(append([]byte(wire.HeaderSASL), wire.AppendSASL(nil, &wire.SASLInit{Mechanism: "ANONYMOUS"})...))
	if got := p.ReceiveHeader(); got != wire.HeaderSASL {
		t.Fatalf("the header %q", got)
	}
	offer, _ := wiretest.ReceiveAMQP[*wire.SASLMechanisms](p)
	if diff := cmp.Diff([]wire.Symbol{"MSSBCBS", "PLAIN", "ANONYMOUS", "EXTERNAL"}, offer.Mechanisms); diff != "" {
		t.Errorf("mechanisms (-want +got):\n%s", diff)
	}
	if outcome, _ := wiretest.ReceiveAMQP[*wire.SASLOutcome](p); outcome.Code != 0 {
		t.Fatalf("the outcome is %d", outcome.Code)
	}
	p.Open(h.HostName)
}

// sasl says hello by a mechanism and returns the peer and the code of the outcome.
func sasl(t testing.TB, h *hubtest.Hub, mechanism wire.Symbol, response []byte, certificates ...tls.Certificate) (*wiretest.AMQPPeer, uint8) {
	t.Helper()
	p := wiretest.NewAMQPPeer(t, wiretest.DialAMQPTCP(t, h, certificates...))
	p.Header(wire.HeaderSASL)
	wiretest.ReceiveAMQP[*wire.SASLMechanisms](p)
	p.Send(0, &wire.SASLInit{Mechanism: mechanism, InitialResponse: response})
	outcome, _ := wiretest.ReceiveAMQP[*wire.SASLOutcome](p)
	return p, outcome.Code
}

func plainOf(user, password string) []byte { return []byte("\x00" + user + "\x00" + password) }

// tryAttach attaches a link by hand, and returns the condition if it is refused.
func tryAttach(p *wiretest.AMQPPeer, handle uint32, address string, sends bool) wire.Symbol {
	p.T.Helper()
	a := &wire.Attach{Name: address, Handle: handle, Role: wire.Role(!sends), Source: &wire.Source{}, Target: &wire.Target{}}
	if sends {
		a.Target.Address, a.InitialDeliveryCount = address, uint32p(0)
	} else {
		a.Source.Address = address
	}
	p.Send(0, a)
	got, _ := wiretest.ReceiveAMQP[*wire.Attach](p)
	if sends && got.Target != nil || !sends && got.Source != nil {
		return ""
	}
	d, _ := wiretest.ReceiveAMQP[*wire.Detach](p)
	if d.Error == nil {
		p.T.Fatalf("%s is refused without an error", address)
	}
	p.Send(0, &wire.Detach{Handle: handle, Closed: true})
	return d.Error.Condition
}

// PLAIN has a token for a password, and for the built-in endpoint a policy's key.
func TestPlain(t *testing.T) {
	h := hubtest.New(t)
	name, _, _ := strings.Cut(h.HostName, ".")
	later := h.Now().Add(time.Hour)
	d1, m1 := h.Device("d1"), h.Module("d1", "m1")
	owner := h.Policy("iothubowner").SharedAccessKey
	ownerToken := serviceToken(t, h, "iothubowner")
	d1Token := wiretest.Sign(t, h.HostName+"/devices/d1", "", d1.SharedAccessKey, later)
	m1Token := wiretest.Sign(t, h.HostName+"/devices/d1/modules/m1", "", m1.SharedAccessKey, later)
	policyForD1 := wiretest.Sign(t, h.HostName, "device", h.Policy("device").SharedAccessKey, later)
	const (
		send, d1Twin, d2Twin, m1Twin = "/messages/devicebound", "/devices/d1/twin", "/devices/d2/twin", "/devices/d1/modules/m1/twin"
	)
	partition := h.EventHub().EntityPath + "/ConsumerGroups/$Default/Partitions/0"
	h.Device("d2")
	for _, tt := range []struct {
		name, user, password string
		opens                []string
	}{
		{"a policy", "iothubowner@sas.root." + name, ownerToken, []string{send, partition, d1Twin, d2Twin, m1Twin}},
		{"a policy of services", "service@sas.root." + name, serviceToken(t, h, "service"), []string{send, partition}},
		{"a device", "d1@sas." + name, d1Token, []string{d1Twin}},
		{"a device, as older clients", "d1@" + name, d1Token, []string{d1Twin}},
		{"a module", "d1/modules/m1@sas." + name, m1Token, []string{m1Twin}},
		{"a device by a policy: it is that device alone", "d1@sas." + name, policyForD1, []string{d1Twin}},
		{"a key", "iothubowner", string(owner), []string{partition}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, code := sasl(t, h, "PLAIN", plainOf(tt.user, tt.password))
			if code != 0 {
				t.Fatalf("the outcome is %d", code)
			}
			p.Open(h.HostName)
			for i, address := range []string{send, partition, d1Twin, d2Twin, m1Twin} {
				want := wire.Symbol(unauthorized)
				if has(tt.opens, address) {
					want = ""
				}
				if got := tryAttach(p, uint32(i), address, address == send); got != want {
					t.Errorf("%s: %q, want %q", address, got, want)
				}
			}
		})
	}
	for _, tt := range []struct {
		name      string
		mechanism wire.Symbol
		response  []byte
	}{
		{"no response", "PLAIN", nil},
		{"no password", "PLAIN", plainOf("iothubowner@sas.root."+name, "")},
		{"the key of another policy", "PLAIN", plainOf("service@sas.root."+name, ownerToken)},
		{"a policy that is not there", "PLAIN", plainOf("nobody", string(owner))},
		{"a key that is not the policy's", "PLAIN", plainOf("service", string(owner))},
		{"a key in place of a token", "PLAIN", plainOf("iothubowner@sas.root."+name, string(owner))},
		{"another hub", "PLAIN", plainOf("iothubowner@sas.root.other", ownerToken)},
		{"a device with the token of another", "PLAIN", plainOf("d2@sas."+name, d1Token)},
		{"a device that is not there", "PLAIN", plainOf("nobody@sas."+name, d1Token)},
		{"a certificate that is not there", "EXTERNAL", nil},
		{"a mechanism that is not offered", "SCRAM-SHA-256", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, code := sasl(t, h, tt.mechanism, tt.response)
			if code != 1 {
				t.Errorf("the outcome is %d, want 1", code)
			}
			p.WantClosed()
		})
	}
}

// A client certificate is an identity from its first link on, with EXTERNAL, with
// another mechanism and, as Node does, without any.
func TestCertificateIsOneIdentity(t *testing.T) {
	h := hubtest.New(t)
	cert := wiretest.Issue("d1", nil, time.Now().Add(time.Hour))
	thumbprint := wiretest.Thumbprint(cert)
	for _, device := range []string{"d1", "d2"} {
		wiretest.Create(t, h.Node, hub.ID{Device: device}, hub.IdentitySpec{Auth: hub.Authentication{Type: hub.AuthSelfSigned, X509: hub.X509Thumbprint{Primary: &thumbprint}}})
	}
	h.Device("sas")
	for _, mechanism := range []wire.Symbol{"", "EXTERNAL", "ANONYMOUS"} {
		var p *wiretest.AMQPPeer
		if mechanism == "" {
			p = wiretest.NewAMQPPeer(t, wiretest.DialAMQPTCP(t, h, cert))
		} else {
			var code uint8
			if p, code = sasl(t, h, mechanism, nil, cert); code != 0 {
				t.Fatalf("%s: the outcome is %d", mechanism, code)
			}
		}
		p.Open(h.HostName)
		for i, want := range []struct {
			address string
			refused wire.Symbol
		}{{"/devices/sas/messages/events", unauthorized}, {"/devices/d1/messages/events", ""}, {"/devices/d2/messages/events", unauthorized}, {"/messages/devicebound", unauthorized}} {
			if got := tryAttach(p, uint32(i), want.address, true); got != want.refused {
				t.Errorf("%q: %s: %q, want %q", mechanism, want.address, got, want.refused)
			}
		}
		p.Close()
	}
}

// Who does not speak AMQP 1.0 is answered with what the hub speaks, and has to
// go; a line in the log says what it was.
func TestOtherProtocols(t *testing.T) {
	log := newLog()
	h := hubtest.New(t, withLog(log))
	for _, tt := range []struct{ name, sent, answer, line string }{
		{"AMQP 0-9-1", "AMQP\x00\x00\x09\x01", wire.HeaderAMQP, "AMQP 0-9-1"},
		{"a later version", "AMQP\x00\x01\x01\x00", wire.HeaderAMQP, "not version 1.0"},
		{"SASL of a later version", "AMQP\x03\x01\x01\x00", wire.HeaderSASL, "not version 1.0"},
		{"TLS inside", wire.HeaderTLS, wire.HeaderAMQP, "TLS inside"},
		{"HTTP", "GET / HTTP/1.1\r\n\r\n", wire.HeaderAMQP, "HTTP"},
		{"MQTT", "\x10\x20\x00\x04MQTT\x04", wire.HeaderAMQP, "MQTT"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			nc := wiretest.DialAMQPTCP(t, h)
			if _, err := nc.Write([]byte(tt.sent)); err != nil {
				t.Fatal(err)
			}
			nc.SetReadDeadline(time.Now().Add(wiretest.Patience))
			got, err := io.ReadAll(nc)
			if string(got) != tt.answer {
				t.Errorf("it is answered %q, want %q (%v)", got, tt.answer, err)
			}
			log.want(t, "connection refused", tt.line)
		})
	}
}

func TestWithoutTLS(t *testing.T) {
	log := newLog()
	h := hubtest.New(t, withLog(log))
	for sent, line := range map[string]string{wire.HeaderAMQP: "AMQP without TLS", "GET / HTTP/1.1\r\n\r\n": "HTTP"} {
		nc := dialTCP(t, h.AMQPSAddr)
		if _, err := nc.Write([]byte(sent)); err != nil {
			t.Fatal(err)
		}
		nc.SetReadDeadline(time.Now().Add(wiretest.Patience))
		if _, err := io.Copy(io.Discard, nc); err != nil {
			t.Logf("the connection ended with %v", err)
		}
		log.want(t, "TLS handshake failed", line)
	}
}

// A hub that closes tells its peers, whoever they are, and waits for none.
func TestClosingTellsPeers(t *testing.T) {
	h := hubtest.New(t)
	service, nobody := newCBSPeer(t, h, "cbs"), newCBSPeer(t, h, "cbs")
	if status := statusOf(t, service.put(putToken("1", serviceToken(t, h, "service")))); status != 200 {
		t.Fatalf("put-token: %d", status)
	}
	began, closed := time.Now(), make(chan error, 1)
	go func() { closed <- h.At(h.AMQPSAddr).Close() }()
	service.WantClose("amqp:connection:forced")
	nobody.WantClose("amqp:connection:forced")
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > wiretest.Patience {
		t.Errorf("it took %v", took)
	}
}
