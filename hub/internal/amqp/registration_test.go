package amqp_test

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	goamqp "github.com/Azure/go-amqp"
	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/clock"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/hub/provisioning"
	"github.com/iotdm/iotdm/sas"
)

// A registrant is a device that asks the provisioning service, with go-amqp.
type registrant struct {
	t    testing.TB
	conn *goamqp.Conn
	out  *goamqp.Sender
	in   *goamqp.Receiver
}

// dialRegistrant opens a connection by PLAIN, or ANONYMOUS without a token, and
// attaches both links.
func dialRegistrant(t testing.TB, h *hubtest.Hub, nc net.Conn, id, token string) (*registrant, error) {
	t.Helper()
	address, ctx := h.IDScope()+"/registrations/"+id, wiretest.WithPatience(t)
	mechanism := goamqp.SASLTypeAnonymous()
	if token != "" {
		mechanism = goamqp.SASLTypePlain(address, token)
	}
	conn, err := goamqp.NewConn(ctx, nc, &goamqp.ConnOptions{HostName: h.HostName, SASLType: mechanism})
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { conn.Close() })
	r := &registrant{t: t, conn: conn}
	s, err := conn.NewSession(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r.in, err = s.NewReceiver(ctx, address, nil); err == nil {
		r.out, err = s.NewSender(ctx, "/"+address, nil) // Java writes the slash
	}
	return r, err
}

// ask sends a request and returns the answer, and the error that it is rejected with.
func (r *registrant) ask(properties map[string]any, correlation any, body string) (*goamqp.Message, provisioning.Operation, error) {
	r.t.Helper()
	ctx := wiretest.WithPatience(r.t)
	m := goamqp.NewMessage([]byte(body))
	m.ApplicationProperties = properties
	if correlation != nil {
		m.Properties = &goamqp.MessageProperties{CorrelationID: correlation}
	}
	var o provisioning.Operation
	if err := r.out.Send(ctx, m, nil); err != nil {
		return nil, o, err
	}
	answer, err := r.in.Receive(ctx, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := r.in.AcceptMessage(ctx, answer); err != nil {
		r.t.Fatal(err)
	}
	if err := json.Unmarshal(answer.GetData(), &o); err != nil {
		r.t.Fatalf("%s: %v", answer.GetData(), err)
	}
	return answer, o, nil
}

var register = map[string]any{"iotdps-operation-type": "iotdps-register", "iotdps-forceRegistration": false}

func poll(id string) map[string]any {
	return map[string]any{"iotdps-operation-type": "iotdps-get-operationstatus", "iotdps-operation-id": id}
}

// A device that registers over any transport, by a key or a certificate, finds its
// identity on the hub that it is told.
func TestRegistration(t *testing.T) {
	h := hubtest.New(t)
	key := wiretest.EnrollByKey(t, h.Node, "by-key").Attestation.SymmetricKey.Secondary
	leaf := wiretest.Issue("by-cert", nil, time.Now().Add(time.Hour))
	wiretest.EnrollByCertificate(t, h.Node, "by-cert", leaf)
	ca := wiretest.Issue("factory", nil, time.Now().Add(time.Hour))
	signed := wiretest.Issue("of-ca", &ca, time.Now().Add(time.Hour))
	signed.Certificate = append(signed.Certificate, ca.Certificate[0])
	wiretest.EnrollGroupByCertificate(t, h.Node, "factory", ca)
	for _, tt := range []struct {
		id, token    string
		certificates []tls.Certificate
	}{
		{id: "by-key", token: wiretest.RegistrationToken(t, h.Node, "by-key", key)},
		{id: "by-cert", certificates: []tls.Certificate{leaf}},
		{id: "of-ca", certificates: []tls.Certificate{signed}},
	} {
		for name, dial := range map[string]func(testing.TB, *hubtest.Hub, ...tls.Certificate) net.Conn{
			"TLS": wiretest.DialAMQPTCP, "WebSocket": wiretest.DialAMQPWebSocket,
		} {
			t.Run(tt.id+" over "+name, func(t *testing.T) {
				r, err := dialRegistrant(t, h, dial(t, h, tt.certificates...), tt.id, tt.token)
				if err != nil {
					t.Fatal(err)
				}
				for _, correlation := range []any{"text", goamqp.UUID{1, 2, 3}, nil} {
					answer, o, err := r.ask(register, correlation, `{"registrationId":"`+tt.id+`"}`)
					if err != nil {
						t.Fatal(err)
					}
					var got any
					if answer.Properties != nil {
						got = answer.Properties.CorrelationID
					}
					if cmp.Diff(correlation, got) != "" || len(answer.ApplicationProperties) > 0 {
						t.Errorf("correlation id %v, want %v; properties %v, want none", got, correlation, answer.ApplicationProperties)
					}
					want := h.HostName
					if name == "WebSocket" {
						want, _, _ = net.SplitHostPort(h.HTTPSAddr)
					}
					if o.Status != provisioning.Assigned || o.Registration.DeviceID != tt.id || o.Registration.Hub != want {
						t.Errorf("%s, want it assigned to %s", answer.GetData(), want)
					}
					if _, again, err := r.ask(poll(o.ID), correlation, ""); err != nil || cmp.Diff(o, again) != "" {
						t.Errorf("the operation is then %+v, %v", again, err)
					}
				}
				device := wiretest.OpenAMQP(t, h, dial(t, h, tt.certificates...))
				if tt.token != "" {
					audience := h.HostName + "/devices/" + tt.id
					device.Claim(audience, wiretest.Sign(t, audience, "", key, h.Now().Add(time.Hour)))
				}
				device.Sender("/devices/" + tt.id + "/messages/events")
			})
		}
	}
}

// Clients read by either name when to ask again.
func TestAssigning(t *testing.T) {
	h := hubtest.New(t, hubtest.WithOptions(node.Options{Assigning: 5 * time.Second, Clock: clock.New()}))
	key := wiretest.EnrollByKey(t, h.Node, "r1").Attestation.SymmetricKey.Primary
	r, err := dialRegistrant(t, h, wiretest.DialAMQPTCP(t, h), "r1", wiretest.RegistrationToken(t, h.Node, "r1", key))
	if err != nil {
		t.Fatal(err)
	}
	answer, first, err := r.ask(register, "1", "")
	want := map[string]any{"retry-after": int32(3), "Retry-After": int32(3)}
	if err != nil || first.Status != provisioning.Assigning || cmp.Diff(want, answer.ApplicationProperties) != "" {
		t.Fatalf("%s with %v, %v; want it with %v", answer.GetData(), answer.ApplicationProperties, err, want)
	}
	h.Advance(6 * time.Second)
	if answer, o, err := r.ask(poll(first.ID), "2", ""); err != nil || o.Status != provisioning.Assigned {
		t.Errorf("%v, %v", answer, err)
	}
}

// What cannot be answered with an assignment is rejected with the envelope, and the
// connection goes on.
func TestRefusedRegistrationRequests(t *testing.T) {
	log := newLog()
	h := hubtest.New(t, withLog(log))
	e := wiretest.EnrollByKey(t, h.Node, "r1")
	r, err := dialRegistrant(t, h, wiretest.DialAMQPTCP(t, h), "r1", wiretest.RegistrationToken(t, h.Node, "r1", e.Attestation.SymmetricKey.Primary))
	if err != nil {
		t.Fatal(err)
	}
	refused := func(name string, properties map[string]any, body string, condition goamqp.ErrCond, code int) {
		t.Helper()
		_, o, err := r.ask(properties, "1", body)
		var rejected *goamqp.Error
		if !errors.As(err, &rejected) {
			t.Fatalf("%s: %+v, %v, want an error", name, o, err)
		}
		var envelope struct {
			ErrorCode                         int
			TrackingID, Message, TimestampUTC string
		}
		if err := json.Unmarshal([]byte(rejected.Description), &envelope); err != nil {
			t.Fatalf("%s: %q: %v", name, rejected.Description, err)
		}
		if rejected.Condition != condition || envelope.ErrorCode != code || envelope.Message == "" || envelope.TimestampUTC == "" {
			t.Errorf("%s: %v, want %s with %d", name, rejected, condition, code)
		}
		log.want(t, "registration refused", "registration=r1", "tracking="+envelope.TrackingID, "remote=127.0.0.1")
	}
	refused("no operation", nil, "", "com.microsoft:argument-error", 400004)
	refused("another operation", map[string]any{"iotdps-operation-type": "x"}, "", "com.microsoft:argument-error", 400004)
	refused("an operation type that is no text", map[string]any{"iotdps-operation-type": int32(1)}, "", "com.microsoft:argument-error", 400004)
	refused("no operation id", map[string]any{"iotdps-operation-type": "iotdps-get-operationstatus"}, "", "com.microsoft:argument-error", 400004)
	refused("an operation of nobody", poll("4.none"), "", "amqp:not-found", 404204)
	refused("no JSON", register, "{", "com.microsoft:argument-error", 400004)
	refused("another registration", register, `{"registrationId":"r2"}`, "com.microsoft:argument-error", 400004)
	refused("a TPM", register, `{"tpm":{"endorsementKey":"AA=="}}`, "amqp:unauthorized-access", 401002)
	refused("too long", register, `{"payload":"`+strings.Repeat("x", provisioning.MaxBody)+`"}`, "amqp:link:message-size-exceeded", 413001)
	if _, err := h.Provisioning.Registration("r1"); err == nil {
		t.Error("r1 has registered")
	}
	// What changes in the enrollment counts at once.
	e.Status = hub.StatusDisabled
	wiretest.Enroll(t, h.Node, e)
	if _, o, err := r.ask(register, "1", ""); err != nil || o.Status != provisioning.Disabled {
		t.Errorf("disabled: %+v, %v", o, err)
	}
	e.Status, e.Attestation.SymmetricKey = hub.StatusEnabled, &provisioning.SymmetricKey{Primary: sas.NewKey(), Secondary: sas.NewKey()}
	wiretest.Enroll(t, h.Node, e)
	refused("another key", register, "", "amqp:unauthorized-access", 401002)
	if err := h.Provisioning.DeleteEnrollment(provisioning.Individual, "r1", hub.Match{Any: true}); err != nil {
		t.Fatal(err)
	}
	refused("no enrollment", register, "", "amqp:not-found", 404201)
}

// Who may not register is refused by SASL, or at the first link, and the operator is
// told which registration it was, from where and why.
func TestRefusedRegistrations(t *testing.T) {
	log := newLog()
	h := hubtest.New(t, withLog(log))
	key := wiretest.EnrollByKey(t, h.Node, "r1").Attestation.SymmetricKey.Primary
	leaf := wiretest.Issue("by-cert", nil, time.Now().Add(time.Hour))
	wiretest.EnrollByCertificate(t, h.Node, "by-cert", leaf)
	for _, tt := range []struct {
		name, scope, id, token, line string
	}{
		{"another scope", "0neFFFFFFFF", "r1", wiretest.RegistrationToken(t, h.Node, "r1", key), "0neFFFFFFFF"},
		{"no enrollment", h.IDScope(), "nobody", wiretest.RegistrationToken(t, h.Node, "nobody", key), "no enrollment nobody"},
		{"another key", h.IDScope(), "r1", wiretest.RegistrationToken(t, h.Node, "r1", sas.NewKey()), "enrollment r1"},
		{"the token of another", h.IDScope(), "r1", wiretest.RegistrationToken(t, h.Node, "r2", key), "another resource"},
		{"an expired token", h.IDScope(), "r1", wiretest.Sign(t, h.IDScope()+"/registrations/r1", "registration", key, h.Now().Add(-sas.Skew-time.Minute)), "expired"},
		{"a certificate is enrolled", h.IDScope(), "by-cert", wiretest.RegistrationToken(t, h.Node, "by-cert", key), "enrollment by-cert"},
		{"a key in place of a token", h.IDScope(), "r1", "key", "registration r1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, code := sasl(t, h, "PLAIN", plainOf(tt.scope+"/registrations/"+tt.id, tt.token))
			if code != 1 {
				t.Errorf("the outcome is %d, want 1", code)
			}
			p.WantClosed()
			log.want(t, "connection refused", "registration "+tt.id, tt.line, "remote=127.0.0.1")
			if recent, _ := h.Refusals(); recent[0].ID.Device != tt.id || recent[0].Reason != "unauthorized" || recent[0].Door != "amqps" {
				t.Errorf("the last refusal is %+v", recent[0])
			}
		})
	}
	other := wiretest.Issue("other", nil, time.Now().Add(time.Hour))
	foreign := wiretest.Issue("by-cert", nil, time.Now().Add(time.Hour))
	for name, tt := range map[string]struct {
		id           string
		certificates []tls.Certificate
		condition    goamqp.ErrCond
		line         string
	}{
		"nothing":                        {"r1", nil, "amqp:unauthorized-access", "neither a token nor a client certificate"},
		"a foreign certificate":          {"by-cert", []tls.Certificate{foreign}, "amqp:unauthorized-access", "thumbprint"},
		"the certificate of another":     {"by-cert", []tls.Certificate{other}, "amqp:unauthorized-access", "common name"},
		"a certificate of nobody":        {"other", []tls.Certificate{other}, "amqp:not-found", "no enrollment other"},
		"a certificate, but keys enroll": {"r1", []tls.Certificate{wiretest.Issue("r1", nil, time.Now().Add(time.Hour))}, "amqp:unauthorized-access", "enrollment r1"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := dialRegistrant(t, h, wiretest.DialAMQPTCP(t, h, tt.certificates...), tt.id, "")
			var refused *goamqp.Error
			if !errors.As(err, &refused) || refused.Condition != tt.condition || !strings.Contains(refused.Description, `"errorCode":40`) {
				t.Errorf("%v, want %s with the envelope", err, tt.condition)
			}
			log.want(t, "registration refused", "registration="+tt.id, tt.line, "remote=127.0.0.1")
		})
	}
	if strings.Contains(log.String(), string(key)) || strings.Contains(log.String(), "SharedAccessSignature sr") {
		t.Errorf("the log has a secret:\n%s", log)
	}
}

// What a registration has proved is good for nothing else on its connection, nor has
// it more links than it needs.
func TestARegistrationIsNothingElse(t *testing.T) {
	h := hubtest.New(t)
	key := wiretest.EnrollByKey(t, h.Node, "r1").Attestation.SymmetricKey.Primary
	wiretest.EnrollByKey(t, h.Node, "r2")
	h.Device("r1")
	name := h.IDScope() + "/registrations/"
	p, code := sasl(t, h, "PLAIN", plainOf(name+"r1", wiretest.RegistrationToken(t, h.Node, "r1", key)))
	if code != 0 {
		t.Fatalf("the outcome is %d", code)
	}
	p.Open(h.HostName)
	for i, address := range []string{"/messages/devicebound", "/devices/r1/messages/events", name + "r2", "0neFFFFFFFF/registrations/r1"} {
		if got := tryAttach(p, uint32(i), address, true); got != unauthorized {
			t.Errorf("%s: %q, want %q", address, got, unauthorized)
		}
	}
	for i := range 6 {
		want := wire.Symbol("")
		if i >= 4 {
			want = "amqp:resource-limit-exceeded"
		}
		a := &wire.Attach{Name: string(rune('a' + i)), Handle: uint32(10 + i), Role: wire.Receiver, Source: &wire.Source{Address: name + "R1"}, Target: &wire.Target{}}
		p.Send(0, a)
		var got wire.Symbol
		if answer, _ := wiretest.ReceiveAMQP[*wire.Attach](p); answer.Source == nil {
			d, _ := wiretest.ReceiveAMQP[*wire.Detach](p)
			got = d.Error.Condition
		}
		if got != want {
			t.Errorf("link %d: %q, want %q", i, got, want)
		}
	}
}

// Connections of registrations end with what ends others: their time, a reset, the
// hub.
func TestEndsOfRegistrationConnections(t *testing.T) {
	log := newLog()
	h := hubtest.New(t, withLog(log))
	key := wiretest.EnrollByKey(t, h.Node, "r1").Attestation.SymmetricKey.Primary
	open := func(life time.Duration) *wiretest.AMQPPeer {
		t.Helper()
		token := wiretest.Sign(t, h.IDScope()+"/registrations/r1", "registration", key, time.Now().Add(life))
		p, code := sasl(t, h, "PLAIN", plainOf(h.IDScope()+"/registrations/r1", token))
		if code != 0 {
			t.Fatalf("the outcome is %d", code)
		}
		p.Open(h.HostName)
		return p
	}
	open(2*time.Second - sas.Skew).WantClose(unauthorized)
	log.want(t, "disconnected", `caller="registration r1"`, "expired")
	p := open(time.Hour)
	h.Reset()
	p.WantClose("amqp:connection:forced")
	log.want(t, "disconnected", `caller="registration r1"`, "reset")
	key = wiretest.EnrollByKey(t, h.Node, "r1").Attestation.SymmetricKey.Primary
	p = open(time.Hour)
	closed := make(chan error, 1)
	go func() { closed <- h.Close() }()
	p.WantClose("amqp:connection:forced")
	if err := <-closed; err != nil {
		t.Error(err)
	}
}
