package mqtt_test

import (
	"crypto/tls"
	"encoding/json"
	"net"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/clock"
	"github.com/iotdm/iotdm/hub/fault"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/hub/provisioning"
	"github.com/iotdm/iotdm/sas"
)

const (
	registerTopic  = "$dps/registrations/PUT/iotdps-register/?$rid="
	operationTopic = "$dps/registrations/GET/iotdps-get-operationstatus/?$rid="
	answerTopic    = "$dps/registrations/res/"
)

// registrationPacket is the CONNECT of an SDK that asks for its hub; without a
// password for a certificate.
func registrationPacket(h *node.Node, id, password string) *packets.ConnectPacket {
	p := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	p.ProtocolName, p.ProtocolVersion, p.Keepalive, p.CleanSession = "MQTT", 4, 60, true
	p.ClientIdentifier, p.UsernameFlag = id, true
	p.Username = h.IDScope() + "/registrations/" + id + "/api-version=2019-03-31&ClientVersion=test%2F1"
	p.Password, p.PasswordFlag = []byte(password), password != ""
	return p
}

// connectRegistration connects and subscribes as SDKs do.
func connectRegistration(t *testing.T, d *wiretest.Client, p *packets.ConnectPacket) {
	t.Helper()
	d.Send(p)
	if ack := wiretest.Receive[*packets.ConnackPacket](d); ack.ReturnCode != 0 || ack.SessionPresent {
		t.Fatalf("CONNACK %d with session %v, want 0 and none", ack.ReturnCode, ack.SessionPresent)
	}
	if granted := d.Subscribe(1, answerTopic+"#"); granted[0] != 1 {
		t.Fatalf("granted %v", granted)
	}
}

// ask publishes a request at QoS 1, and returns the answer behind the PUBACK.
func ask(t *testing.T, d *wiretest.Client, topic, payload string) (answer string, o provisioning.Operation, body string) {
	t.Helper()
	d.Publish(topic, payload)
	p := wiretest.Receive[*packets.PublishPacket](d)
	if err := json.Unmarshal(p.Payload, &o); err != nil {
		t.Fatalf("%s: %v in %s", p.TopicName, err, p.Payload)
	}
	return p.TopicName, o, string(p.Payload)
}

// A device that registers over any transport, by a key or a certificate, finds its
// identity on the hub that it is told.
func TestRegistration(t *testing.T) {
	h := hubtest.New(t, hubtest.WithOptions(node.Options{HostNames: []string{"factory.test"}}))
	key := wiretest.EnrollByKey(t, h.Node, "by-key").Attestation.SymmetricKey
	group := wiretest.Enroll(t, h.Node, provisioning.Enrollment{GroupID: "g", Attestation: provisioning.Attestation{Type: provisioning.BySymmetricKey}})
	derived := wiretest.DerivedKey(t, group.Attestation.SymmetricKey.Primary, "of-group")
	leaf := wiretest.Issue("by-cert", nil, time.Now().Add(time.Hour))
	wiretest.EnrollByCertificate(t, h.Node, "by-cert", leaf)
	ca := wiretest.Issue("factory", nil, time.Now().Add(time.Hour))
	signed := wiretest.Issue("of-ca", &ca, time.Now().Add(time.Hour))
	signed.Certificate = append(signed.Certificate, ca.Certificate[0])
	wiretest.EnrollGroupByCertificate(t, h.Node, "factory", ca)
	for _, tt := range []struct {
		id, written string // as the device writes it
		key         sas.Key
		certificate *tls.Certificate
	}{
		{id: "by-key", key: key.Primary},
		{id: "by-key", key: key.Secondary},
		{id: "by-key", written: "By-Key", key: key.Primary},
		{id: "of-group", key: derived},
		{id: "by-cert", certificate: &leaf},
		{id: "of-ca", certificate: &signed},
	} {
		id, password := tt.id, ""
		if tt.written != "" {
			id = tt.written
		}
		var certificates []tls.Certificate
		if tt.key != "" {
			password = wiretest.RegistrationToken(t, h.Node, id, tt.key)
		} else {
			certificates = []tls.Certificate{*tt.certificate}
		}
		for name, dial := range map[string]func() *wiretest.Client{
			"TLS": func() *wiretest.Client {
				config := h.ClientTLS()
				config.ServerName, config.Certificates = "factory.test", certificates
				return wiretest.DialTLSConfig(t, h, config)
			},
			"WebSocket": func() *wiretest.Client { return wiretest.DialWebSocket(t, h, certificates...) },
		} {
			t.Run(id+" over "+name, func(t *testing.T) {
				d := dial()
				connectRegistration(t, d, registrationPacket(h.Node, id, password))
				topic, o, body := ask(t, d, registerTopic+"1", `{"registrationId":"`+id+`"}`)
				want := "factory.test"
				if name == "WebSocket" {
					want, _, _ = net.SplitHostPort(h.HTTPSAddr)
				}
				if topic != answerTopic+"200/?$rid=1" || o.Status != provisioning.Assigned || o.Registration == nil ||
					o.Registration.Hub != want || o.Registration.DeviceID != tt.id {
					t.Fatalf("%s %s, want device %s assigned to %s", topic, body, tt.id, want)
				}
				topic, again, body := ask(t, d, operationTopic+"2&operationId="+o.ID, " ")
				if topic != answerTopic+"200/?$rid=2" || cmp.Diff(o, again) != "" {
					t.Errorf("the operation is then %s %s", topic, body)
				}
				d.Disconnect()
				device := dialCertificate(t, h, tt.certificate)
				change := func(p *packets.ConnectPacket) {
					if tt.key != "" {
						p.PasswordFlag, p.Password = true, token(t, "localhost/devices/"+tt.id, "", tt.key, time.Now().Add(time.Hour))
					}
				}
				if code := device.Connack(hub.ID{Device: tt.id}, change); code != 0 {
					t.Errorf("CONNACK %d for the device on its hub", code)
				}
			})
		}
	}
}

// TestPahoRegisters has a client of somebody else's register, over both transports.
func TestPahoRegisters(t *testing.T) {
	h := hubtest.New(t)
	keys := wiretest.EnrollByKey(t, h.Node, "paho").Attestation.SymmetricKey
	for _, url := range []string{"tls://" + h.MQTTSAddr, "wss://" + h.HTTPSAddr + "/$iothub/websocket"} {
		t.Run(url[:3], func(t *testing.T) {
			p := registrationPacket(h.Node, "paho", wiretest.RegistrationToken(t, h.Node, "paho", keys.Primary))
			client := mqtt.NewClient(mqtt.NewClientOptions().AddBroker(url).SetTLSConfig(h.ClientTLS()).SetClientID("paho").SetUsername(p.Username).
				SetPassword(string(p.Password)).SetProtocolVersion(4).SetAutoReconnect(false))
			wait(t, client.Connect())
			defer client.Disconnect(100)
			answers := make(chan mqtt.Message, 1)
			wait(t, client.Subscribe(answerTopic+"#", 1, func(_ mqtt.Client, m mqtt.Message) { answers <- m }))
			wait(t, client.Publish(registerTopic+"42", 1, false, `{}`))
			select {
			case m := <-answers:
				if m.Topic() != answerTopic+"200/?$rid=42" || !strings.Contains(string(m.Payload()), `"status":"assigned"`) {
					t.Errorf("%s %s", m.Topic(), m.Payload())
				}
			case <-time.After(wiretest.Patience):
				t.Fatal("no answer")
			}
			wait(t, client.Unsubscribe(answerTopic+"#"))
		})
	}
}

// A registration that takes its time is asked for again, when the hub says.
func TestAssigning(t *testing.T) {
	c := clock.New()
	h := hubtest.New(t, hubtest.WithOptions(node.Options{Assigning: 5 * time.Second, Clock: c}))
	keys := wiretest.EnrollByKey(t, h.Node, "r1").Attestation.SymmetricKey
	d := wiretest.DialTLS(t, h)
	connectRegistration(t, d, registrationPacket(h.Node, "r1", wiretest.RegistrationToken(t, h.Node, "r1", keys.Primary)))
	topic, first, body := ask(t, d, registerTopic+"1", "")
	if topic != answerTopic+"202/?$rid=1&retry-after=3" || body != `{"operationId":"`+first.ID+`","status":"assigning"}` {
		t.Fatalf("%s %s", topic, body)
	}
	poll := operationTopic + "1&operationId=" + first.ID
	if topic, o, body := ask(t, d, poll, ""); topic != answerTopic+"202/?$rid=1&retry-after=3" || o.ID != first.ID {
		t.Fatalf("%s %s", topic, body)
	}
	h.Advance(6 * time.Second)
	if topic, o, body := ask(t, d, poll, ""); topic != answerTopic+"200/?$rid=1" || o.Status != provisioning.Assigned {
		t.Errorf("%s %s", topic, body)
	}
}

// Requests that come at once are answered in their order, though they have the same
// id: Embedded C gives none another.
func TestRegistrationRequestsInARow(t *testing.T) {
	h := hubtest.New(t)
	keys := wiretest.EnrollByKey(t, h.Node, "r1").Attestation.SymmetricKey
	d := wiretest.DialTLS(t, h)
	connectRegistration(t, d, registrationPacket(h.Node, "r1", wiretest.RegistrationToken(t, h.Node, "r1", keys.Primary)))
	var sent []packets.ControlPacket
	for i := range 20 {
		topic := registerTopic + "1"
		if i%2 == 1 {
			topic = operationTopic + "1&operationId=none"
		}
		sent = append(sent, wiretest.PublishPacket(0, 0, topic, ""))
	}
	d.Send(append(sent, packets.NewControlPacket(packets.Pingreq))...)
	for i := range 20 {
		want := answerTopic + "200/?$rid=1"
		if i%2 == 1 {
			want = answerTopic + "404/?$rid=1"
		}
		if p := wiretest.Receive[*packets.PublishPacket](d); p.TopicName != want {
			t.Errorf("answer %d on %s, want %s", i, p.TopicName, want)
		}
	}
	wiretest.Receive[*packets.PingrespPacket](d)
}

// What cannot be answered with an assignment is answered with why, and the
// connection goes on.
func TestRefusedRegistrationRequests(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	keys := wiretest.EnrollByKey(t, h.Node, "r1").Attestation.SymmetricKey
	d := wiretest.DialTLS(t, h.Hub)
	connectRegistration(t, d, registrationPacket(h.Node, "r1", wiretest.RegistrationToken(t, h.Node, "r1", keys.Primary)))
	for _, tt := range []struct {
		name, topic, payload string
		status, code         int
	}{
		{"no JSON", registerTopic + "7", "{", 400, 400004},
		{"no object", registerTopic + "7", "[]", 400, 400004},
		{"another registration", registerTopic + "7", `{"registrationId":"r2"}`, 400, 400004},
		{"a TPM", registerTopic + "7", `{"tpm":{"endorsementKey":"AA=="}}`, 401, 401002},
		{"too long", registerTopic + "7", `{"payload":"` + strings.Repeat("x", provisioning.MaxBody) + `"}`, 413, 413001},
		{"no operation", operationTopic + "7", "", 400, 400004},
		{"an operation of nobody", operationTopic + "7&operationId=4.none", "", 404, 404204},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d.T = t
			logged := h.Log.Expect("registration refused")
			topic, _, body := ask(t, d, tt.topic, tt.payload)
			var e struct {
				ErrorCode                         int
				TrackingID, Message, TimestampUTC string
			}
			if err := json.Unmarshal([]byte(body), &e); err != nil {
				t.Fatal(err)
			}
			if topic != answerTopic+strconv.Itoa(tt.status)+"/?$rid=7" || e.ErrorCode != tt.code || e.TrackingID == "" || e.Message == "" || e.TimestampUTC == "" {
				t.Errorf("%s %s, want %d", topic, body, tt.code)
			}
			<-logged
			if line := h.Log.String(); !strings.Contains(line, "registration=r1") || !strings.Contains(line, "tracking="+e.TrackingID) {
				t.Errorf("the log has %s", line)
			}
		})
	}
	if topic, _, body := ask(t, d, registerTopic+"8", ""); topic != answerTopic+"200/?$rid=8" {
		t.Errorf("then %s %s", topic, body)
	}
}

// What changes in an enrollment counts at the next request on a connection that is
// open.
func TestRevocationCountsAtOnce(t *testing.T) {
	h := hubtest.New(t)
	e := wiretest.EnrollByKey(t, h.Node, "r1")
	d := wiretest.DialTLS(t, h)
	connectRegistration(t, d, registrationPacket(h.Node, "r1", wiretest.RegistrationToken(t, h.Node, "r1", e.Attestation.SymmetricKey.Primary)))
	e.Status = hub.StatusDisabled
	wiretest.Enroll(t, h.Node, e)
	if topic, o, body := ask(t, d, registerTopic+"1", ""); topic != answerTopic+"200/?$rid=1" || o.Status != provisioning.Disabled {
		t.Errorf("disabled: %s %s", topic, body)
	}
	e.Status, e.Attestation.SymmetricKey = hub.StatusEnabled, &provisioning.SymmetricKey{Primary: sas.NewKey(), Secondary: sas.NewKey()}
	wiretest.Enroll(t, h.Node, e)
	if topic, _, body := ask(t, d, registerTopic+"2", ""); topic != answerTopic+"401/?$rid=2" {
		t.Errorf("other keys: %s %s", topic, body)
	}
	if err := h.Provisioning.DeleteEnrollment(provisioning.Individual, "r1", hub.Match{Any: true}); err != nil {
		t.Fatal(err)
	}
	if topic, _, body := ask(t, d, registerTopic+"3", ""); topic != answerTopic+"404/?$rid=3" || !strings.Contains(body, "404201") {
		t.Errorf("deleted: %s %s", topic, body)
	}
	if _, err := h.Identity(hub.ID{Device: "r1"}); err == nil {
		t.Error("the device has been created")
	}
}

// Connections of registrations end with what ends others: their time, a reset, the
// hub. The metrics count them.
func TestEndsOfRegistrationConnections(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{Clock: clock.New(), TestControls: true})
	keys := wiretest.EnrollByKey(t, h.Node, "r1").Attestation.SymmetricKey
	open := func(life time.Duration) *wiretest.Client {
		d := wiretest.DialTLS(t, h.Hub)
		expiry := time.Now().Add(life).Truncate(time.Second)
		token := wiretest.Sign(t, h.IDScope()+"/registrations/r1", "registration", keys.Primary, expiry)
		connectRegistration(t, d, registrationPacket(h.Node, "r1", token))
		return d
	}
	logged := h.Log.Expect(`msg=disconnected registration=r1 reason="the credential expired"`)
	d := open(5*time.Second - sas.Skew)
	d.WantClosed()
	<-logged
	d = open(time.Hour)
	logged = h.Log.Expect(`msg=disconnected registration=r1 reason="the hub was reset"`)
	h.Reset()
	d.WantClosed()
	<-logged
	if code := func() byte {
		d := wiretest.DialTLS(t, h.Hub)
		d.Send(registrationPacket(h.Node, "r1", wiretest.RegistrationToken(t, h.Node, "r1", keys.Primary)))
		return wiretest.Receive[*packets.ConnackPacket](d).ReturnCode
	}(); code != 5 {
		t.Errorf("CONNACK %d of a hub that has been reset, want 5", code)
	}
	keys = wiretest.EnrollByKey(t, h.Node, "r1").Attestation.SymmetricKey
	d = open(time.Hour)
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	d.WantClosed()
}

// What a fault of registrations does: the device is told, or hears nothing.
func TestRegistrationsMeetFaults(t *testing.T) {
	h := hubtest.New(t)
	key := wiretest.EnrollByKey(t, h.Node, "r1").Attestation.SymmetricKey.Primary
	d := wiretest.DialTLS(t, h)
	connectRegistration(t, d, registrationPacket(h.Node, "r1", wiretest.RegistrationToken(t, h.Node, "r1", key)))
	h.Fault(fault.Fault{On: fault.Registration, Device: "r1", Status: 429, RetryAfter: 5 * time.Second, Count: 1})
	if topic, _, body := ask(t, d, registerTopic+"1", ""); topic != answerTopic+"429/?$rid=1&retry-after=5" {
		t.Errorf("429: %s %s", topic, body)
	}
	h.Fault(fault.Fault{On: fault.Registration, Status: 504, Count: 1})
	if topic, _, body := ask(t, d, registerTopic+"2", ""); topic != answerTopic+"504/?$rid=2" {
		t.Errorf("504: %s %s", topic, body)
	}
	if topic, o, body := ask(t, d, registerTopic+"3", ""); topic != answerTopic+"200/?$rid=3" || o.Status != provisioning.Assigned {
		t.Errorf("behind the faults: %s %s", topic, body)
	}
	h.Fault(fault.Fault{On: fault.Registration, Drop: true, Count: 1})
	d.Send(wiretest.PublishPacket(9, 1, registerTopic+"4", ""))
	d.WantClosed()
}

// TestAnIdleRegistrationIsOneGoroutine, as the connection of a device.
func TestAnIdleRegistrationIsOneGoroutine(t *testing.T) {
	h := hubtest.New(t)
	keys := wiretest.EnrollByKey(t, h.Node, "r1").Attestation.SymmetricKey
	token := wiretest.RegistrationToken(t, h.Node, "r1", keys.Primary)
	const connections = 20
	runtime.GC()
	before := runtime.NumGoroutine()
	for range connections {
		connectRegistration(t, wiretest.DialTLS(t, h), registrationPacket(h.Node, "r1", token))
	}
	for began := time.Now(); runtime.NumGoroutine() > before+connections; runtime.Gosched() {
		if time.Since(began) > wiretest.Patience {
			t.Fatalf("%d goroutines for %d connections", runtime.NumGoroutine()-before, connections)
		}
	}
}
