package amqp_test

import (
	"cmp"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	goamqp "github.com/Azure/go-amqp"
	gocmp "github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/clock"
	"github.com/iotdm/iotdm/hub/fault"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/hub/provisioning"
	"github.com/iotdm/iotdm/sas"
)

// A registrant is a device that asks the provisioning service, with go-amqp.
type registrant struct {
	t     testing.TB
	conn  *goamqp.Conn
	local string // address
	out   *goamqp.Sender
	in    *goamqp.Receiver
}

// dialRegistrant opens a connection by PLAIN, or ANONYMOUS without a token, and
// attaches both links.
func dialRegistrant(t testing.TB, h *hubtest.Hub, nc net.Conn, address, token string) (*registrant, error) {
	t.Helper()
	ctx := wiretest.WithPatience(t)
	mechanism := goamqp.SASLTypeAnonymous()
	if token != "" {
		mechanism = goamqp.SASLTypePlain(address, token)
	}
	conn, err := goamqp.NewConn(ctx, nc, &goamqp.ConnOptions{HostName: h.HostName, SASLType: mechanism})
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { conn.Close() })
	r := &registrant{t: t, conn: conn, local: nc.LocalAddr().String()}
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
				r, err := dialRegistrant(t, h, dial(t, h, tt.certificates...), h.IDScope()+"/registrations/"+tt.id, tt.token)
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
					if gocmp.Diff(correlation, got) != "" || len(answer.ApplicationProperties) > 0 {
						t.Errorf("correlation id %v, want %v; properties %v, want none", got, correlation, answer.ApplicationProperties)
					}
					want := h.HostName
					if name == "WebSocket" {
						want, _, _ = net.SplitHostPort(h.HTTPSAddr)
					}
					if o.Status != provisioning.Assigned || o.Registration.DeviceID != tt.id || o.Registration.Hub != want {
						t.Errorf("%s, want it assigned to %s", answer.GetData(), want)
					}
					if _, again, err := r.ask(poll(o.ID), correlation, ""); err != nil || gocmp.Diff(o, again) != "" {
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
	r, err := dialRegistrant(t, h, wiretest.DialAMQPTCP(t, h), h.IDScope()+"/registrations/r1", wiretest.RegistrationToken(t, h.Node, "r1", key))
	if err != nil {
		t.Fatal(err)
	}
	answer, first, err := r.ask(register, "1", "")
	want := map[string]any{"retry-after": int32(3), "Retry-After": int32(3)}
	if err != nil || first.Status != provisioning.Assigning || gocmp.Diff(want, answer.ApplicationProperties) != "" {
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
	r, err := dialRegistrant(t, h, wiretest.DialAMQPTCP(t, h), h.IDScope()+"/registrations/r1", wiretest.RegistrationToken(t, h.Node, "r1", e.Attestation.SymmetricKey.Primary))
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

// Who may not register is told so when it asks, is known to nobody, and the operator is
// told which registration it was, from where and why.
func TestRefusedRegistrations(t *testing.T) {
	log := newLog()
	h := hubtest.New(t, withLog(log))
	key := wiretest.EnrollByKey(t, h.Node, "r1").Attestation.SymmetricKey.Primary
	leaf := wiretest.Issue("by-cert", nil, time.Now().Add(time.Hour))
	wiretest.EnrollByCertificate(t, h.Node, "by-cert", leaf)
	other := wiretest.Issue("other", nil, time.Now().Add(time.Hour))
	swapped := wiretest.Issue("r1", nil, time.Now().Add(time.Hour))
	foreign := wiretest.Issue("by-cert", nil, time.Now().Add(time.Hour))
	own := func(id string) string { return wiretest.RegistrationToken(t, h.Node, id, key) }
	for name, tt := range map[string]struct {
		scope, id, token string
		certificate      *tls.Certificate
		status           int
		line             string
	}{
		"another scope":                  {scope: "0neFFFFFFFF", id: "r1", token: own("r1"), status: 404201, line: "0neFFFFFFFF"},
		"no enrollment":                  {id: "nobody", token: own("nobody"), status: 404201, line: "no enrollment nobody"},
		"another key":                    {id: "r1", token: wiretest.RegistrationToken(t, h.Node, "r1", sas.NewKey()), status: 401002, line: "enrollment r1"},
		"the token of another":           {id: "r1", token: own("r2"), status: 401002, line: "another resource"},
		"an expired token":               {id: "r1", token: wiretest.Sign(t, h.IDScope()+"/registrations/r1", "registration", key, h.Now().Add(-sas.Skew-time.Minute)), status: 401002, line: "expired"},
		"a certificate is enrolled":      {id: "by-cert", token: own("by-cert"), status: 401002, line: "enrollment by-cert"},
		"a key in place of a token":      {id: "r1", token: "key", status: 401002, line: "r1"},
		"nothing":                        {id: "r1", status: 401002, line: "neither a token nor a client certificate"},
		"a foreign certificate":          {id: "by-cert", certificate: &foreign, status: 401002, line: "thumbprint"},
		"the certificate of another":     {id: "by-cert", certificate: &other, status: 401002, line: "common name"},
		"a certificate of nobody":        {id: "other", certificate: &other, status: 404201, line: "no enrollment other"},
		"a certificate, but keys enroll": {id: "r1", certificate: &swapped, status: 401002, line: "enrollment r1"},
	} {
		t.Run(name, func(t *testing.T) {
			var certificates []tls.Certificate
			if tt.certificate != nil {
				certificates = append(certificates, *tt.certificate)
			}
			r, err := dialRegistrant(t, h, wiretest.DialAMQPTCP(t, h, certificates...), cmp.Or(tt.scope, h.IDScope())+"/registrations/"+tt.id, tt.token)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				_, _, err = r.ask(register, "1", "")
				var refused *goamqp.Error
				if !errors.As(err, &refused) || !strings.Contains(refused.Description, fmt.Sprintf(`"errorCode":%d`, tt.status)) {
					t.Errorf("%v, want %d in the envelope", err, tt.status)
				}
			}
			log.want(t, "registration refused", "registration="+tt.id, tt.line, "remote=127.0.0.1")
			if recent := h.Refusals(t.Context()).Recent; recent[0].ID.Device != tt.id || recent[0].Reason != "unauthorized" || recent[0].Door != "amqps" {
				t.Errorf("the last refusal is %+v", recent[0])
			}
			r.conn.Close()
			log.want(t, "connection refused", r.local)
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

// What is no request is rejected, and the next one is answered; what it has proved is
// good for nothing else.
func TestWhatIsNoRequestOfARegistration(t *testing.T) {
	h := hubtest.New(t)
	key := wiretest.EnrollByKey(t, h.Node, "r1").Attestation.SymmetricKey.Primary
	r, err := dialRegistrant(t, h, wiretest.DialAMQPTCP(t, h), h.IDScope()+"/registrations/r1", wiretest.RegistrationToken(t, h.Node, "r1", key))
	if err != nil {
		t.Fatal(err)
	}
	ctx := wiretest.WithPatience(t)
	for name, m := range map[string]*goamqp.Message{
		"no operation":        {Value: "x"},
		"a body that is huge": {Data: [][]byte{make([]byte, 250<<10)}, ApplicationProperties: register},
	} {
		if err := r.out.Send(ctx, m, nil); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	if _, o, err := r.ask(register, "1", ""); err != nil || o.Status != provisioning.Assigned {
		t.Fatalf("%+v, %v", o, err)
	}
	session, err := r.conn.NewSession(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{"/messages/devicebound", "/devices/r1/messages/events"} {
		var refused *goamqp.Error
		if _, err := session.NewSender(ctx, address, nil); !errors.As(err, &refused) || refused.Condition != goamqp.ErrCond(unauthorized) {
			t.Errorf("a registration attaches to %s: %v", address, err)
		}
	}
}

// Messages that go-amqp would not send are rejected too.
func TestMalformedRegistrationRequests(t *testing.T) {
	h := hubtest.New(t)
	key := wiretest.EnrollByKey(t, h.Node, "r1").Attestation.SymmetricKey.Primary
	address := h.IDScope() + "/registrations/r1"
	p, _ := sasl(t, h, "PLAIN", plainOf(address, wiretest.RegistrationToken(t, h.Node, "r1", key)))
	p.Open(h.HostName)
	p.Send(0, &wire.Attach{Name: "out", Role: wire.Sender, Source: &wire.Source{}, Target: &wire.Target{Address: address}, InitialDeliveryCount: uint32p(0)})
	wiretest.ReceiveAMQP[*wire.Attach](p)
	for i, payload := range [][]byte{nil, {0}, {0, 0x53, 0x75, 0xb0, 0xff, 0xff, 0xff, 0xff}, []byte("iotdps-register")} {
		frame := wire.AppendFrame(nil, 0, &wire.Transfer{Handle: 0, DeliveryID: uint32p(uint32(i)), DeliveryTag: []byte{byte(i)}}, payload)
		p.SendBytes(frame)
		d, _ := wiretest.ReceiveAMQP[*wire.Disposition](p)
		if _, rejected := d.State.(*wire.Rejected); d.First != uint32(i) || !rejected {
			t.Errorf("%q: %+v, want it rejected", payload, d)
		}
	}
}

// Connections of registrations end with what ends others: their time, a reset, the
// hub.
func TestEndsOfRegistrationConnections(t *testing.T) {
	log := newLog()
	h := hubtest.New(t, withLog(log))
	key := wiretest.EnrollByKey(t, h.Node, "r1").Attestation.SymmetricKey.Primary
	open := func(life time.Duration) *registrant {
		t.Helper()
		token := wiretest.Sign(t, h.IDScope()+"/registrations/r1", "registration", key, time.Now().Add(life))
		r, err := dialRegistrant(t, h, wiretest.DialAMQPTCP(t, h), h.IDScope()+"/registrations/r1", token)
		if err == nil {
			_, _, err = r.ask(register, "1", "")
		}
		if err != nil {
			t.Fatal(err)
		}
		log.want(t, "connected", `caller="registration r1"`, r.local)
		return r
	}
	ends := func(r *registrant, condition goamqp.ErrCond) {
		t.Helper()
		select {
		case <-r.conn.Done():
		case <-time.After(wiretest.Patience):
			t.Fatal("the connection is still open")
		}
		var closed *goamqp.ConnError
		if err := r.conn.Err(); !errors.As(err, &closed) || closed.RemoteErr == nil || closed.RemoteErr.Condition != condition {
			t.Errorf("the connection ended with %v, want %s", err, condition)
		}
	}
	ends(open(5*time.Second-sas.Skew), goamqp.ErrCond(unauthorized))
	log.want(t, "disconnected", `caller="registration r1"`, "expired")
	if !hubtest.Several() { // only a hub of one node is reset
		r := open(time.Hour)
		h.Reset()
		ends(r, "amqp:connection:forced")
		log.want(t, "disconnected", `caller="registration r1"`, "reset")
		key = wiretest.EnrollByKey(t, h.Node, "r1").Attestation.SymmetricKey.Primary
	}
	r := open(time.Hour)
	if err := h.At(h.AMQPSAddr).Close(); err != nil {
		t.Error(err)
	}
	ends(r, "amqp:connection:forced")
}

// What a fault of registrations does: the device is told, or hears nothing.
func TestRegistrationsMeetFaults(t *testing.T) {
	h := hubtest.New(t)
	key := wiretest.EnrollByKey(t, h.Node, "r1").Attestation.SymmetricKey.Primary
	token := wiretest.RegistrationToken(t, h.Node, "r1", key)
	r, err := dialRegistrant(t, h, wiretest.DialAMQPTCP(t, h), h.IDScope()+"/registrations/r1", token)
	if err != nil {
		t.Fatal(err)
	}
	h.Fault(fault.Fault{On: fault.Registration, Device: "r1", Status: 429, RetryAfter: 5 * time.Second, Count: 1})
	_, _, err = r.ask(register, "1", "")
	if refused, ok := errors.AsType[*goamqp.Error](err); !ok || fmt.Sprint(refused.Info["retry-after"]) != "5" || !strings.Contains(refused.Description, `"errorCode":429001`) {
		t.Errorf("429: %v", err)
	}
	if _, o, err := r.ask(register, "2", ""); err != nil || o.Status != provisioning.Assigned {
		t.Errorf("behind the fault: %v, %v", o, err)
	}
	h.Fault(fault.Fault{On: fault.Registration, Drop: true, Count: 1})
	if _, _, err := r.ask(register, "3", ""); err == nil {
		t.Error("a request that is dropped was answered")
	}
}
