package mqttdevice

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/sas"
)

// listen has a peer take connections over TLS, and returns options to register with it.
func (p *peer) listen(t *testing.T) RegistrationOptions {
	t.Helper()
	server := httptest.NewTLSServer(nil) // which has a certificate
	t.Cleanup(server.Close)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: server.TLS.Certificates})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			p.begin(conn)
		}
	}()
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	return RegistrationOptions{
		Host: "example.com", IDScope: "0ne00ABCDEF", RegistrationID: "dev-1", Key: testKey,
		Addr: listener.Addr().String(), TLS: &tls.Config{RootCAs: roots},
	}
}

// registering runs Register, and returns what it will return.
func registering(ctx context.Context, opt RegistrationOptions) func() (Assignment, error) {
	type result struct {
		a   Assignment
		err error
	}
	done := make(chan result, 1)
	go func() {
		a, err := Register(ctx, opt)
		done <- result{a, err}
	}()
	return func() (Assignment, error) {
		r := <-done
		return r.a, r.err
	}
}

// admit takes a connection up to SUBACK.
func (p *peer) admit() (*peerConn, *packets.ConnectPacket) {
	p.t.Helper()
	c := <-p.conns
	connect := next[*packets.ConnectPacket](c)
	c.connack(packets.Accepted)
	c.suback(next[*packets.SubscribePacket](c), 1)
	return c, connect
}

// answer takes a request and answers it at QoS 1, which the device acknowledges.
func (c *peerConn) answer(status, more, body string) (topic, sent string) {
	c.t.Helper()
	request := next[*packets.PublishPacket](c)
	c.puback(request)
	_, query, _ := strings.Cut(request.TopicName, "/?")
	rid, _ := param(query, "$rid")
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.Qos, p.MessageID = 1, 7
	p.TopicName, p.Payload = "$dps/registrations/res/"+status+"/?$rid="+rid+more, []byte(body)
	c.send(p)
	if ack := next[*packets.PubackPacket](c); ack.MessageID != 7 {
		c.t.Errorf("the device acknowledged message %d, want 7", ack.MessageID)
	}
	return request.TopicName, string(request.Payload)
}

const assignedDocument = `{"operationId":"4.d0a6.42d7","status":"assigned","registrationState":{"x509":{},"registrationId":"dev-1",` +
	`"createdDateTimeUtc":"2020-04-10T03:11:13.0276997Z","assignedHub":"contoso.azure-devices.net","deviceId":"pump-1","status":"assigned",` +
	`"substatus":"initialAssignment","lastUpdatedDateTimeUtc":"2020-04-10T03:11:13.2096201Z","etag":"IjYx","payload":{"a":1}}}`

func TestRegister(t *testing.T) {
	p := newPeer(t)
	opt := p.listen(t)
	opt.Payload = []byte(`{"model":"x"}`)
	now := time.Now()
	opt.Now = func() time.Time { return now }
	result := registering(t.Context(), opt)
	c, connect := p.admit()
	if connect.ClientIdentifier != "dev-1" || !connect.CleanSession {
		t.Errorf("client id %q, clean session %v", connect.ClientIdentifier, connect.CleanSession)
	}
	if want := "0ne00ABCDEF/registrations/dev-1/api-version=2019-03-31&ClientVersion=iotdm%20%28"; !strings.HasPrefix(connect.Username, want) {
		t.Errorf("user name %q, want %s...", connect.Username, want)
	}
	token, err := sas.ParseToken(string(connect.Password))
	if err != nil || !token.SignedBy(testKey) || token.Policy != "registration" || token.Resource != "0ne00ABCDEF%2Fregistrations%2Fdev-1" {
		t.Errorf("password %v, error %v", token, err)
	}
	began := time.Now()
	topic, sent := c.answer("202", "&retry-after=1", `{"operationId":"4.d0a6.42d7","status":"assigning"}`)
	if topic != "$dps/registrations/PUT/iotdps-register/?$rid=1" || sent != `{"registrationId":"dev-1","payload":{"model":"x"}}` {
		t.Errorf("the request is %s %s", topic, sent)
	}
	topic, sent = c.answer("200", "", assignedDocument)
	if topic != "$dps/registrations/GET/iotdps-get-operationstatus/?$rid=2&operationId=4.d0a6.42d7" || sent != "" {
		t.Errorf("the second request is %s %q", topic, sent)
	}
	if waited := time.Since(began); waited < time.Second {
		t.Errorf("the device asked again after %v, and was told to wait for 1s", waited)
	}
	want := Assignment{"contoso.azure-devices.net", "pump-1", "initialAssignment", []byte(`{"a":1}`)}
	got, err := result()
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("error %v; assignment (-want +got):\n%s", err, diff)
	}
	if cs := got.ConnectionString(testKey).Format(); cs != "HostName=contoso.azure-devices.net;DeviceId=pump-1;SharedAccessKey="+testKey {
		t.Error(cs)
	}
	c.gone()
}

func TestRegistrationsThatAreRefused(t *testing.T) {
	tests := []struct {
		name         string
		connack      byte
		status, body string
		is           error
		want         string
	}{
		{"at CONNECT", packets.ErrRefusedNotAuthorised, "", "", ErrUnauthorized, "refused the device: the key or certificate is wrong"},
		{"for another reason at CONNECT", packets.ErrRefusedIDRejected, "", "", nil, "answered 400 (code 2 to CONNECT)"},
		{"a wrong key", 0, "401", `{"errorCode":401002,"trackingId":"t","message":"Unauthorized","timestampUtc":"2026-01-01T00:00:00Z"}`, ErrUnauthorized, "refused the device (401002 Unauthorized): "},
		{"no enrollment", 0, "404", `{"errorCode":404201,"message":"Registration not found"}`, ErrNotEnrolled, "has no enrollment for the device (404201 Registration not found)"},
		{"a bad request", 0, "400", `no JSON`, nil, "answered 400"},
		{"a disabled enrollment", 0, "200", `{"operationId":"1","status":"disabled","registrationState":{"status":"disabled"}}`, ErrEnrollmentDisabled, "is disabled"},
		{"no hub", 0, "200", `{"operationId":"1","status":"failed","registrationState":{"status":"failed","errorCode":400207,"errorMessage":"Custom allocation failed"}}`, ErrNotAssigned, "has found no hub for the device (400207 Custom allocation failed)"},
		{"nothing decided", 0, "200", `{"operationId":"1","status":"unassigned"}`, ErrNotAssigned, "has found no hub"},
		{"a hub that is none", 0, "200", `{"status":"assigned","registrationState":{"assignedHub":"a;b","deviceId":"d"}}`, ErrNotAssigned, `hub "a;b", which cannot be`},
		{"no device", 0, "200", `{"status":"assigned","registrationState":{"assignedHub":"a"}}`, ErrNotAssigned, `device ""`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newPeer(t)
			result := registering(t.Context(), p.listen(t))
			if tt.connack != 0 {
				p.refuse(tt.connack)
			} else {
				c, _ := p.admit()
				c.answer(tt.status, "", tt.body)
			}
			_, err := result()
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Fatalf("error %v, want %q", err, tt.want)
			}
			for _, e := range []error{ErrUnauthorized, ErrNotEnrolled, ErrEnrollmentDisabled, ErrNotAssigned} {
				if errors.Is(err, e) != (e == tt.is) {
					t.Errorf("error %v is %v: %v", err, e, e != tt.is)
				}
			}
		})
	}
}

func TestRegistrationsThatAreTriedAgain(t *testing.T) {
	tests := []struct {
		name  string
		fail  func(*peer)
		topic string // of the first request after that
		least time.Duration
		want  string
	}{
		{"busy at CONNECT", func(p *peer) { p.refuse(packets.ErrRefusedServerUnavailable) }, registerTopic, time.Second, "busy"},
		{"too many", func(p *peer) {
			c, _ := p.admit()
			c.answer("429", "&retry-after=1", `{"errorCode":429001,"message":"Throttled"}`)
		}, registerTopic, time.Second, "answered 429 (429001 Throttled)"},
		{"an error of the service", func(p *peer) { c, _ := p.admit(); c.answer("500", "", "") }, registerTopic, time.Second, "answered 500"},
		{"a connection that breaks", func(p *peer) { c, _ := p.admit(); next[*packets.PublishPacket](c); c.Close() }, registerTopic, time.Second, "closed the connection"},
		{"an operation under way", func(p *peer) {
			c, _ := p.admit()
			c.answer("202", "&retry-after=1", `{"operationId":"op-1","status":"assigning"}`)
			next[*packets.PublishPacket](c)
			c.Close()
		}, operationTopic, 2 * time.Second, "closed the connection"},
		{"not MQTT", func(p *peer) {
			c, _ := p.admit()
			next[*packets.PublishPacket](c)
			c.suback(&packets.SubscribePacket{}, 1)
		}, registerTopic, time.Second, "does not speak MQTT"},
		{"an answer out of bounds", func(p *peer) {
			c, _ := p.admit()
			next[*packets.PublishPacket](c)
			c.Write([]byte{0x30, 0xff, 0xff, 0xff, 0x7f})
		}, registerTopic, time.Second, "too large"},
		{"an operation that no topic can name", func(p *peer) { c, _ := p.admit(); c.answer("202", "", `{"operationId":"a#b","status":"assigning"}`) }, registerTopic, time.Second, "names no operation"},
		{"no JSON", func(p *peer) { c, _ := p.admit(); c.answer("200", "", `{`) }, registerTopic, time.Second, "not as documented"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := newPeer(t)
			opt := p.listen(t)
			reasons := make(chan error, 16)
			opt.OnRetry = func(reason error, _ time.Duration) { reasons <- reason }
			began := time.Now()
			result := registering(t.Context(), opt)
			tt.fail(p)
			if reason := <-reasons; !strings.Contains(reason.Error(), tt.want) {
				t.Errorf("it is tried again because of %v, want %q", reason, tt.want)
			}
			c, _ := p.admit()
			if topic, _ := c.answer("200", "", assignedDocument); !strings.HasPrefix(topic, tt.topic) {
				t.Errorf("then the device sent %s, want %s", topic, tt.topic)
			}
			if a, err := result(); err != nil || a.DeviceID != "pump-1" {
				t.Errorf("%+v, %v", a, err)
			}
			if took := time.Since(began); took < tt.least {
				t.Errorf("tried again after %v, want %v or more", took, tt.least)
			}
		})
	}
}

// A service that has forgotten an operation is asked to register again, on the same connection.
func TestARegistrationThatTheServiceHasForgotten(t *testing.T) {
	p := newPeer(t)
	result := registering(t.Context(), p.listen(t))
	c, _ := p.admit()
	c.answer("202", "&retry-after=1", `{"operationId":"op-1","status":"assigning"}`)
	c.answer("404", "", `{"errorCode":404204}`)
	if topic, _ := c.answer("404", "", `{"errorCode":404201}`); !strings.HasPrefix(topic, registerTopic) {
		t.Errorf("then the device sent %s", topic)
	}
	if _, err := result(); !errors.Is(err, ErrNotEnrolled) {
		t.Error(err)
	}
}

func TestARegistrationEndsWithItsContext(t *testing.T) {
	p := newPeer(t)
	ctx, cancel := context.WithCancel(t.Context())
	result := registering(ctx, p.listen(t))
	c, _ := p.admit()
	next[*packets.PublishPacket](c) // which gets no answer
	cancel()
	if _, err := result(); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	c.gone()
}

func TestRegistrationsThatAreNotTried(t *testing.T) {
	good := RegistrationOptions{IDScope: "0ne00ABCDEF", RegistrationID: "dev-1", Key: testKey}
	tests := []struct {
		change func(*RegistrationOptions)
		want   string
	}{
		{func(o *RegistrationOptions) { o.IDScope = "" }, "no id scope"},
		{func(o *RegistrationOptions) { o.IDScope = "0ne/0" }, `id scope "0ne/0" is not`},
		{func(o *RegistrationOptions) { o.RegistrationID = "" }, `registration id "" is not`},
		{func(o *RegistrationOptions) { o.RegistrationID = "a/b" }, `registration id "a/b" is not`},
		{func(o *RegistrationOptions) { o.RegistrationID = "a." }, `registration id "a." is not`},
		{func(o *RegistrationOptions) { o.RegistrationID = strings.Repeat("a", 129) }, `is not 1 to 128`},
		{func(o *RegistrationOptions) { o.Key = "" }, "neither a key nor a certificate"},
		{func(o *RegistrationOptions) { o.Key = "secret" }, "the key to register with is not base64"},
		{func(o *RegistrationOptions) { o.Payload = []byte("{") }, "is not JSON"},
		{func(o *RegistrationOptions) { o.Transport = -1 }, "transport -1"},
	}
	for _, tt := range tests {
		opt := good
		tt.change(&opt)
		if _, err := Register(t.Context(), opt); err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("error %v, want %q", err, tt.want)
		}
	}
}

func TestAProvisioningServiceThatIsNotTrusted(t *testing.T) {
	opt := newPeer(t).listen(t)
	opt.TLS = nil
	_, err := Register(t.Context(), opt)
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); !ok {
		t.Error(err)
	}
}

// Nobody who can write to the connection makes the device fail otherwise than with an error.
func FuzzRegistrationAnswer(f *testing.F) {
	f.Add([]byte("\x20\x02\x00\x00\x90\x03\x00\x01\x01\x30\x05\x00\x01$ok"))
	f.Add([]byte("\x20\x02\x00\x05"))
	f.Add([]byte("\x20\x00\x90\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		near, far := net.Pipe()
		defer near.Close()
		go func() { // takes what the device sends
			buffer := make([]byte, 1024)
			for {
				if _, err := far.Read(buffer); err != nil {
					return
				}
			}
		}()
		go func() {
			far.Write(data)
			far.Close()
		}()
		x := &inquiry{conn: &wire{Conn: near, lose: func(error) {}, frames: framing{filters: 1}}}
		if err := x.hello("s", "r", "p"); err != nil {
			return
		}
		_, _, answer, err := x.ask(t.Context(), registerTopic, "", nil)
		if err == nil && len(answer) > len(data) {
			t.Errorf("an answer of %d bytes in %d", len(answer), len(data))
		}
	})
}
