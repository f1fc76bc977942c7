package mqtt_test

import (
	"crypto/tls"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/hub/provisioning"
	"github.com/iotdm/iotdm/sas"
)

// Who may not register is refused with code 5, and the operator is told which
// registration it was, from where and why.
func TestRefusedRegistrations(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	// The hub's clock stands, the machine's does not.
	issue := func(name string, ca *tls.Certificate) *tls.Certificate {
		c := wiretest.Issue(name, ca, h.Now().Add(time.Hour))
		return &c
	}
	r1 := wiretest.EnrollByKey(t, h.Node, "r1").Attestation.SymmetricKey
	r2 := wiretest.EnrollByKey(t, h.Node, "r2").Attestation.SymmetricKey
	own := issue("by-cert", nil)
	wiretest.EnrollByCertificate(t, h.Node, "by-cert", *own)
	ca := issue("factory", nil)
	wiretest.EnrollGroupByCertificate(t, h.Node, "factory", *ca)
	old := wiretest.Issue("late", ca, h.Now().Add(-time.Hour))
	for _, tt := range []struct {
		name        string
		id          string
		password    string
		certificate *tls.Certificate
		change      func(*packets.ConnectPacket)
		line        []string
	}{
		{name: "another scope", id: "r1", password: wiretest.RegistrationToken(t, h.Node, "r1", r1.Primary),
			change: func(p *packets.ConnectPacket) {
				p.Username = strings.Replace(p.Username, h.IDScope(), "0neFFFFFFFF", 1)
			}, line: []string{"r1", "0neFFFFFFFF", h.IDScope()}},
		{name: "no enrollment", id: "nobody", certificate: nil, password: wiretest.RegistrationToken(t, h.Node, "nobody", r1.Primary), line: []string{"nobody"}},
		{name: "another key", id: "r1", password: wiretest.RegistrationToken(t, h.Node, "r1", sas.NewKey()), line: []string{"enrollment r1"}},
		{name: "the key of another", id: "r1", password: wiretest.RegistrationToken(t, h.Node, "r1", r2.Primary), line: []string{"enrollment r1"}},
		{name: "the token of another", id: "r1", password: wiretest.RegistrationToken(t, h.Node, "r2", r2.Primary), line: []string{"r1", "another resource"}},
		{name: "an expired token", id: "r1",
			password: wiretest.Sign(t, h.IDScope()+"/registrations/r1", "registration", r1.Primary, h.Now().Add(-sas.Skew-time.Minute)), line: []string{"r1", "expired"}},
		{name: "no token", id: "r1", password: "key", line: []string{"r1"}},
		{name: "nothing", id: "r1", line: []string{"r1", "neither a token nor a client certificate"}},
		{name: "a token where a certificate is enrolled", id: "by-cert", password: wiretest.RegistrationToken(t, h.Node, "by-cert", r1.Primary), line: []string{"enrollment by-cert"}},
		{name: "a certificate where a key is enrolled", id: "r1", certificate: issue("r1", nil), line: []string{"enrollment r1"}},
		{name: "a foreign certificate", id: "by-cert", certificate: issue("by-cert", nil), line: []string{"by-cert", "thumbprint"}},
		{name: "the certificate of another", id: "r1", certificate: own, line: []string{"r1", "by-cert"}},
		{name: "signed by nobody that is enrolled", id: "stranger", certificate: issue("stranger", nil), line: []string{"stranger"}},
		{name: "an expired certificate of a group", id: "late", certificate: &old, line: []string{"late"}},
		{name: "an id that is none", id: "r1$", password: wiretest.RegistrationToken(t, h.Node, "r1$", r1.Primary), line: []string{"r1$"}},
		{name: "another client id", id: "r1", password: wiretest.RegistrationToken(t, h.Node, "r1", r1.Primary),
			change: func(p *packets.ConnectPacket) { p.ClientIdentifier = "r2" }, line: []string{"client id"}},
		{name: "a will", id: "r1", password: wiretest.RegistrationToken(t, h.Node, "r1", r1.Primary),
			change: func(p *packets.ConnectPacket) {
				p.WillFlag, p.WillTopic, p.WillMessage = true, "$dps/registrations/", []byte("x")
			}, line: []string{"r1", "will"}},
		{name: "a policy of the hub", id: "r1", password: h.Token("iothubowner"), line: []string{"r1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			logged := h.Log.Expect("connection refused")
			config := h.ClientTLS()
			config.ServerName, config.Time = "localhost", h.Now
			if tt.certificate != nil {
				config.Certificates = []tls.Certificate{*tt.certificate}
			}
			d := wiretest.DialTLSConfig(t, h.Hub, config)
			p := registrationPacket(h.Node, tt.id, tt.password)
			if tt.change != nil {
				tt.change(p)
			}
			d.Send(p)
			if ack := wiretest.Receive[*packets.ConnackPacket](d); ack.ReturnCode != 5 {
				t.Errorf("CONNACK %d, want 5", ack.ReturnCode)
			}
			d.WantClosed()
			<-logged
			_, line, _ := strings.Cut(h.Log.String(), "connection refused")
			for _, word := range append(tt.line, "registration="+tt.id, "remote=127.0.0.1:") {
				if !strings.Contains(line, word) {
					t.Errorf("the log does not say %q: %s", word, line)
				}
			}
			for _, secret := range []sas.Key{r1.Primary, r2.Primary, sas.Key(tt.password)} {
				if secret != "" && secret != "key" && strings.Contains(h.Log.String(), string(secret)) {
					t.Errorf("the log has a secret: %s", h.Log)
				}
			}
			recent := h.Refusals(t.Context()).Recent
			if len(recent) == 0 || recent[0].ID.Device != tt.id || recent[0].Reason != "unauthorized" || recent[0].Door != "mqtts" {
				t.Errorf("the last refusals are %+v", recent)
			}
		})
	}
	if _, err := h.Provisioning.Registration("r1"); err == nil {
		t.Error("somebody has registered")
	}
}

// TestWhatClosesTheConnectionOfARegistration sends what only devices of a hub may, or
// nobody.
func TestWhatClosesTheConnectionOfARegistration(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	key := wiretest.EnrollByKey(t, h.Node, "r1").Attestation.SymmetricKey.Primary
	h.Device("r1") // is no business of the registration
	connect := registrationPacket(h.Node, "r1", wiretest.RegistrationToken(t, h.Node, "r1", key))
	for name, sent := range map[string][]byte{
		"a second CONNECT":                   bytesOf(t, connect),
		"telemetry":                          bytesOf(t, wiretest.PublishPacket(1, 1, "devices/r1/messages/events/", "x")),
		"a twin request":                     bytesOf(t, wiretest.PublishPacket(1, 1, "$iothub/twin/GET/?$rid=1", "")),
		"a request without $rid":             bytesOf(t, wiretest.PublishPacket(1, 0, "$dps/registrations/PUT/iotdps-register/", "")),
		"a request with an endless $rid":     bytesOf(t, wiretest.PublishPacket(1, 0, registerTopic+strings.Repeat("1", 129), "")),
		"an answer":                          bytesOf(t, wiretest.PublishPacket(1, 0, "$dps/registrations/res/200/?$rid=1", "")),
		"QoS 2":                              bytesOf(t, wiretest.PublishPacket(1, 2, registerTopic+"1", "")),
		"a body that is longer than any":     append([]byte{0x30, 0xff, 0xff, 0xff, 0x7f}, registerTopic...),
		"a filter for methods":               bytesOf(t, wiretest.SubscribePacket(1, 1, "$iothub/methods/POST/#")),
		"a filter for all":                   bytesOf(t, wiretest.SubscribePacket(1, 1, "#")),
		"a filter for messages":              bytesOf(t, wiretest.SubscribePacket(1, 1, "devices/r1/messages/devicebound/#")),
		"one filter of two":                  bytesOf(t, wiretest.SubscribePacket(1, 1, "$dps/registrations/res/#", "$iothub/twin/res/#")),
		"a filter with QoS 3":                {0x82, 6, 0, 1, 0, 1, '$', 3},
		"a packet of the server":             {0x20, 2, 0, 0},
		"a topic that is not UTF-8":          {0x30, 4, 0, 2, 0xff, 0xfe},
		"a PUBLISH with packet identifier 0": bytesOf(t, wiretest.PublishPacket(0, 1, registerTopic+"1", "")),
	} {
		t.Run(name, func(t *testing.T) {
			logged := h.Log.Expect("msg=disconnected registration=r1")
			d := wiretest.DialTLSAt(t, h.Hub, h.Now())
			connectRegistration(t, d, connect)
			d.Write(sent)
			d.WantClosed()
			<-logged
		})
	}
	if events := wiretest.Telemetry(t, h.Node, "r1"); len(events) > 0 {
		t.Errorf("there is telemetry: %v", events)
	}
	if _, err := h.Provisioning.Registration("r1"); err == nil {
		t.Error("r1 has registered")
	}
}

// A device called "registrations" is a device, and registers like any other.
func TestADeviceCalledRegistrations(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	d := wiretest.DialTLSAt(t, h.Hub, h.Now())
	cs := h.Device("registrations")
	d.Connect(cs, func(p *packets.ConnectPacket) {
		p.Password = token(t, cs.Audience(), "", cs.SharedAccessKey, h.Now().Add(time.Hour))
	})
	d.Disconnect()
	key := wiretest.EnrollByKey(t, h.Node, "registrations").Attestation.SymmetricKey.Primary
	d = wiretest.DialTLSAt(t, h.Hub, h.Now())
	connectRegistration(t, d, registrationPacket(h.Node, "registrations", wiretest.RegistrationToken(t, h.Node, "registrations", key)))
	if topic, o, body := ask(t, d, registerTopic+"1", ""); o.Status != provisioning.Assigned {
		t.Errorf("%s %s", topic, body)
	}
}
