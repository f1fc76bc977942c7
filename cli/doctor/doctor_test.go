package doctor_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/iotdm/iotdm/cli/doctor"
	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/clock"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/mqttdevice"
	"github.com/iotdm/iotdm/sas"
)

const azureName = "contoso.azure-devices.net"

// asDevice are the options of a device that reaches h and can have its registry
// asked.
func asDevice(h *hubtest.Hub, id string) doctor.Options {
	opt := alone(h, id)
	opt.Registry = h.Policy("iothubowner")
	return opt
}

// alone are the options of a device that knows no more than its connection
// string.
func alone(h *hubtest.Hub, id string) doctor.Options {
	return doctor.Options{Connection: h.Device(id), MQTTSAddr: h.MQTTSAddr, HTTPSAddr: h.HTTPSAddr, AMQPSAddr: h.AMQPSAddr, Roots: h.RootCAs()}
}

func asService(h *hubtest.Hub, policy string) doctor.Options {
	return doctor.Options{Connection: h.Policy(policy), MQTTSAddr: h.MQTTSAddr, HTTPSAddr: h.HTTPSAddr, AMQPSAddr: h.AMQPSAddr, Roots: h.RootCAs()}
}

func authorityOf(t *testing.T, h *hubtest.Hub) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(h.CACertificate())
	ca, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// examine runs doctor without any proxy but the one that the test sets.
func examine(t *testing.T, opt doctor.Options) map[string]doctor.Check {
	t.Helper()
	checks := map[string]doctor.Check{}
	for _, c := range doctor.Run(t.Context(), opt, doctor.Progress{}) {
		t.Logf("%-8s %-11s %s -> %s", c.Verdict, c.Name, c.Detail, c.Remedy)
		checks[c.Name] = c
	}
	return checks
}

// expect compares a check with a verdict and patterns for what it says.
func expect(t *testing.T, checks map[string]doctor.Check, name string, verdict doctor.Verdict, detail, remedy string) {
	t.Helper()
	c := checks[name]
	if c.Verdict != verdict || !regexp.MustCompile(detail).MatchString(c.Detail) || !regexp.MustCompile(remedy).MatchString(c.Remedy) {
		t.Errorf("%s is %s: %q, %q; want %s: %q, %q", name, c.Verdict, c.Detail, c.Remedy, verdict, detail, remedy)
	}
}

// expectOK wants every other check to be well: what it names is the one cause.
func expectOK(t *testing.T, checks map[string]doctor.Check, except ...string) {
	t.Helper()
	for name, c := range checks {
		if (c.Verdict == doctor.Failed || c.Verdict == doctor.Warning) && !strings.Contains(strings.Join(except, " "), name) {
			t.Errorf("%s is %s: %q", name, c.Verdict, c.Detail)
		}
	}
}

func TestNothingIsWrong(t *testing.T) {
	h := hubtest.New(t)
	six := asDevice(h, "d1")
	six.Connection.HostName = "[::1]"
	for _, tt := range []struct {
		name   string
		opt    doctor.Options
		accept string
	}{
		{"a hub with an IPv6 address as its name", six, `accepts it as device "d1"`},
		{"a device", asDevice(h, "d1"), `accepts it as device "d1"`},
		{"a device with an id that needs escaping", asDevice(h, "d%2F#?+$'"), `accepts it as device "d%2F#\?\+\$'"`},
		{"a service", asService(h, "service"), "for calls but not for the registry"},
		{"a reader of the registry", asService(h, "registryRead"), "for reading the registry but not for calls"},
		{"an owner", asService(h, "iothubowner"), "for calls and for reading the registry"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.opt.HubCA = authorityOf(t, h)
			checks := examine(t, tt.opt)
			expectOK(t, checks)
			expect(t, checks, doctor.CheckCredential, doctor.OK, tt.accept, "^$")
		})
	}
}

func TestPorts(t *testing.T) {
	h := hubtest.New(t)
	t.Run("a closed port for MQTT", func(t *testing.T) {
		opt := asDevice(h, "d1")
		opt.MQTTSAddr = closedPort(t)
		checks := examine(t, opt)
		expect(t, checks, doctor.CheckMQTTPort, doctor.Failed, "^nothing listens on "+opt.MQTTSAddr+"$", "use MQTT over WebSocket, as \"iotdm device\" does by itself$")
		expect(t, checks, doctor.CheckMQTTTLS, doctor.Skipped, "", "")
		expectOK(t, checks, doctor.CheckMQTTPort)
	})
	t.Run("a closed port for MQTT that the device does not need", func(t *testing.T) {
		opt := asDevice(h, "d1")
		opt.MQTTSAddr, opt.WebSocket = closedPort(t), true
		expect(t, examine(t, opt), doctor.CheckMQTTPort, doctor.Warning, `^nothing listens on .* \(only MQTT without WebSocket needs it\)$`, "")
	})
	t.Run("a closed port for REST", func(t *testing.T) {
		opt := asService(h, "service")
		opt.HTTPSAddr = closedPort(t)
		checks := examine(t, opt)
		expect(t, checks, doctor.CheckHTTPSPort, doctor.Failed, "^nothing listens on "+opt.HTTPSAddr+"$", "check the host name")
		expect(t, checks, doctor.CheckCredential, doctor.Skipped, "not reached", "")
	})
	t.Run("a closed port for AMQP", func(t *testing.T) {
		opt := asService(h, "service")
		opt.AMQPSAddr = closedPort(t)
		checks := examine(t, opt)
		expect(t, checks, doctor.CheckAMQPPort, doctor.Warning, `^nothing listens on .* \(only AMQP without WebSocket needs it\)$`, "use AMQP over WebSocket, as \"iotdm service\" does by itself$")
		expect(t, checks, doctor.CheckAMQPTLS, doctor.Skipped, "not reached", "")
		expect(t, checks, doctor.CheckAMQP, doctor.Warning, "^the hub takes AMQP over WebSocket only$", "AmqpWebSockets.* let port 5671 out$")
		expectOK(t, checks, doctor.CheckAMQPPort, doctor.CheckAMQP)
	})
	t.Run("a hub that does not listen for AMQP over TLS", func(t *testing.T) {
		opt := asService(h, "service")
		opt.NoAMQPS = true
		checks := examine(t, opt)
		expect(t, checks, doctor.CheckAMQPPort, doctor.Skipped, "the hub does not listen", "")
		expect(t, checks, doctor.CheckAMQP, doctor.OK, "over WebSocket, and accepts the credential$", "")
		expectOK(t, checks)
	})
	t.Run("something else listens for AMQP", func(t *testing.T) {
		opt := asService(h, "service")
		opt.AMQPSAddr = h.HTTPSAddr
		checks := examine(t, opt)
		expect(t, checks, doctor.CheckAMQP, doctor.Warning, "^the hub takes AMQP over WebSocket only: .*(does not speak AMQP|no answer in time)", "5671")
		expectOK(t, checks, doctor.CheckAMQP)
	})
	t.Run("a device", func(t *testing.T) {
		checks := examine(t, asDevice(h, "d1"))
		for _, name := range []string{doctor.CheckAMQPPort, doctor.CheckAMQPTLS, doctor.CheckAMQP} {
			if c, found := checks[name]; found {
				t.Errorf("%s is looked at for a device: %+v", name, c)
			}
		}
	})
	t.Run("a port that speaks something else", func(t *testing.T) {
		opt := asDevice(h, "d1")
		opt.MQTTSAddr = serve(t, func(c net.Conn) { io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n") })
		expect(t, examine(t, opt), doctor.CheckMQTTTLS, doctor.Failed, "does not speak TLS$", "login page")
	})
	t.Run("a port that ends the handshake", func(t *testing.T) {
		opt := asDevice(h, "d1")
		opt.MQTTSAddr = serve(t, func(c net.Conn) { io.ReadFull(c, make([]byte, 5)) })
		expect(t, examine(t, opt), doctor.CheckMQTTTLS, doctor.Failed, "ends the connection during the TLS handshake$", "firewall")
	})
	t.Run("a port that says nothing", func(t *testing.T) {
		opt := asDevice(h, "d1")
		opt.MQTTSAddr = serve(t, func(c net.Conn) { io.Copy(io.Discard, c) })
		opt.Timeout = 200 * time.Millisecond
		checks := examine(t, opt)
		expect(t, checks, doctor.CheckMQTTTLS, doctor.Failed, "accepts connections, but does not answer TLS within 200ms$", "")
		if !checks[doctor.CheckMQTTTLS].TimedOut {
			t.Error("it is not a time-out")
		}
	})
	t.Run("a host that does not exist", func(t *testing.T) {
		conn := h.Device("d1")
		conn.HostName = "no-such-hub.invalid"
		checks := examine(t, doctor.Options{Connection: conn})
		expect(t, checks, doctor.CheckDNS, doctor.Failed, "no-such-hub.invalid", "HostName|DNS")
		expect(t, checks, doctor.CheckMQTTPort, doctor.Skipped, "no address", "")
		expectOK(t, checks, doctor.CheckDNS)
	})
}

func TestCertificates(t *testing.T) {
	h := hubtest.New(t)
	ca := newAuthority(t, "Plant CA")
	t.Run("an unknown authority", func(t *testing.T) {
		opt := asDevice(h, "d1")
		opt.Roots = ca.pool()
		checks := examine(t, opt)
		expect(t, checks, doctor.CheckMQTTTLS, doctor.Failed, `^the certificate is from "iotdm hub CA \w+", which this machine does not trust$`, "--ca-file")
		expect(t, checks, doctor.CheckCredential, doctor.Skipped, "not sent to a peer whose certificate does not verify", "")
		expect(t, checks, doctor.CheckClock, doctor.OK, "", "")
	})
	t.Run("an expired certificate", func(t *testing.T) {
		opt := asDevice(h, "d1")
		until := time.Now().AddDate(0, 0, -10)
		opt.MQTTSAddr, opt.HubCA = front(t, ca.leaf("localhost", until), h.MQTTSAddr), ca.cert.Leaf
		opt.Roots.AddCert(ca.cert.Leaf)
		checks := examine(t, opt)
		expect(t, checks, doctor.CheckMQTTTLS, doctor.Failed, "^the certificate expired on "+until.UTC().Format(time.DateOnly)+"$", "^have whoever runs the hub renew it$")
		expect(t, checks, doctor.CheckClock, doctor.OK, "", "")
	})
	t.Run("an expired certificate of an unknown authority", func(t *testing.T) {
		opt := asDevice(h, "d1")
		opt.MQTTSAddr = front(t, newAuthority(t, "Other CA").leaf("localhost", time.Now().AddDate(0, 0, -10)), h.MQTTSAddr)
		expect(t, examine(t, opt), doctor.CheckMQTTTLS, doctor.Failed, `^the certificate expired on .*; besides, the certificate is from "Other CA"`, "renew")
	})
	t.Run("a certificate that ends soon", func(t *testing.T) {
		opt := asDevice(h, "d1")
		opt.MQTTSAddr = front(t, ca.leaf("localhost", time.Now().AddDate(0, 0, 3)), h.MQTTSAddr)
		opt.Roots.AddCert(ca.cert.Leaf)
		expect(t, examine(t, opt), doctor.CheckMQTTTLS, doctor.Warning, "", "renewed in time")
	})
	t.Run("a certificate for another name", func(t *testing.T) {
		opt := asDevice(h, "d1")
		opt.MQTTSAddr = front(t, ca.leaf("other.test", time.Now().AddDate(1, 0, 0)), h.MQTTSAddr)
		opt.Roots.AddCert(ca.cert.Leaf)
		expect(t, examine(t, opt), doctor.CheckMQTTTLS, doctor.Failed, `^the certificate is not for localhost but for "other.test"$`, "--host NAME")
	})
	t.Run("another program on the hub's port", func(t *testing.T) {
		opt := asDevice(h, "d1")
		opt.MQTTSAddr, opt.HubCA = front(t, newAuthority(t, "Other CA").leaf("localhost", time.Now().AddDate(1, 0, 0)), h.MQTTSAddr), authorityOf(t, h)
		expect(t, examine(t, opt), doctor.CheckMQTTTLS, doctor.Failed, `from "Other CA" and not from the hub's own CA: another program answers there`, "check what listens on that port")
	})
}

// setProxy makes the program take this proxy and no other.
func setProxy(t *testing.T, name, value string) {
	t.Helper()
	for _, n := range []string{"HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"} {
		t.Setenv(n, "")
		t.Setenv(strings.ToLower(n), "")
	}
	t.Setenv(name, value)
}

func TestProxies(t *testing.T) {
	h := hubtest.New(t, hubtest.WithOptions(node.Options{HostNames: []string{azureName, "hub.example"}}))
	hosts := map[string]string{"8883": h.MQTTSAddr, "443": h.HTTPSAddr}
	both := []string{"8883", "443"}
	as := func(host string) doctor.Options {
		conn := h.Device("d1")
		conn.HostName = host
		return doctor.Options{Connection: conn, Roots: h.RootCAs()}
	}
	t.Run("one that lets through", func(t *testing.T) {
		addr := (&proxy{ports: both, hosts: hosts}).start(t)
		setProxy(t, "ALL_PROXY", "http://"+addr)
		checks := examine(t, as("hub.example"))
		expectOK(t, checks)
		expect(t, checks, doctor.CheckProxy, doctor.OK, "^http://"+addr+", from ALL_PROXY$", "")
		expect(t, checks, doctor.CheckMQTTPort, doctor.OK, "hub.example:8883 answers through the proxy", "")
		expect(t, checks, doctor.CheckCredential, doctor.OK, "", "")
	})
	t.Run("one that forbids 8883", func(t *testing.T) {
		addr := (&proxy{ports: []string{"443"}, hosts: hosts}).start(t)
		setProxy(t, "HTTPS_PROXY", "http://"+addr)
		checks := examine(t, as("hub.example"))
		expectOK(t, checks, doctor.CheckMQTTPort)
		expect(t, checks, doctor.CheckMQTTPort, doctor.Failed, "proxy "+addr+": it answered CONNECT hub.example:8883 with 403 Forbidden$", "allow CONNECT to port 8883; until then use MQTT over WebSocket")
	})
	t.Run("one that opens connections, with a CA this machine does not trust", func(t *testing.T) {
		addr := (&proxy{ports: both, hosts: hosts, ca: newAuthority(t, "ACME Web Inspection")}).start(t)
		setProxy(t, "HTTPS_PROXY", "http://"+addr)
		checks := examine(t, as(azureName))
		for _, name := range []string{doctor.CheckMQTTTLS, doctor.CheckHTTPSTLS} {
			want := doctor.Failed
			if name == doctor.CheckHTTPSTLS {
				want = doctor.Warning
			}
			expect(t, checks, name, want, `from "ACME Web Inspection" and not from one of Azure's, such as DigiCert Global Root G2: the proxy `+addr+" opens the connection to look inside",
				"pass TLS to "+azureName+" through unopened, or name the hub in NO_PROXY")
		}
		expect(t, checks, doctor.CheckCredential, doctor.Skipped, "not sent to a peer", "")
	})
	t.Run("one that opens connections, with a CA this machine trusts", func(t *testing.T) {
		ca := newAuthority(t, "Zscaler Root CA")
		addr := (&proxy{ports: both, hosts: hosts, ca: ca}).start(t)
		setProxy(t, "HTTPS_PROXY", "http://"+addr)
		for _, host := range []string{azureName, "hub.example"} {
			opt := as(host)
			opt.Roots.AddCert(ca.cert.Leaf)
			checks := examine(t, opt)
			expect(t, checks, doctor.CheckMQTTTLS, doctor.Warning, `from "Zscaler Root CA".* the proxy `+addr+" opens the connection", "")
			expect(t, checks, doctor.CheckCredential, doctor.OK, "", "")
		}
	})
	t.Run("one whose words are not fit to print", func(t *testing.T) {
		addr := serve(t, func(c net.Conn) { io.WriteString(c, "HTTP/1.1 503 \x1b[2Jgone\r\nContent-Length: 0\r\n\r\n") })
		setProxy(t, "HTTPS_PROXY", "http://"+addr)
		expect(t, examine(t, as("hub.example")), doctor.CheckProxy, doctor.Failed, `with 503  \[2Jgone$`, "")
	})
	t.Run("a machine without Azure's root", func(t *testing.T) {
		addr := (&proxy{ports: both, hosts: hosts, ca: newAuthority(t, "DigiCert Global Root G2")}).start(t)
		setProxy(t, "HTTPS_PROXY", "http://"+addr)
		expect(t, examine(t, as(azureName)), doctor.CheckMQTTTLS, doctor.Failed, `^the certificate leads to "DigiCert Global Root G2", as those of Azure do`, "root certificates up to date")
	})
	t.Run("one that does not run", func(t *testing.T) {
		addr := closedPort(t)
		setProxy(t, "HTTPS_PROXY", "http://u:secret@"+addr)
		checks := examine(t, as("hub.example"))
		expect(t, checks, doctor.CheckProxy, doctor.Failed, "^http://"+addr+", from HTTPS_PROXY.*connection refused$", "NO_PROXY")
		expect(t, checks, doctor.CheckMQTTPort, doctor.Skipped, "", "")
		expectOK(t, checks, doctor.CheckProxy)
	})
	t.Run("one that is none", func(t *testing.T) {
		setProxy(t, "HTTPS_PROXY", "http://u:secret@%zz")
		checks := examine(t, as("hub.invalid"))
		expect(t, checks, doctor.CheckProxy, doctor.Warning, "^HTTPS_PROXY does not name a proxy such as http://proxy:3128, and is ignored$", "")
		for _, c := range checks {
			if strings.Contains(c.Detail, "secret") {
				t.Errorf("%s shows the password", c.Name)
			}
		}
	})
}

func TestWebSocketBlocked(t *testing.T) {
	h := hubtest.New(t)
	ca := newAuthority(t, "Plant CA")
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" {
			http.Error(w, "no", http.StatusNotImplemented)
			return
		}
		io.WriteString(w, "{}") // which will do for what doctor asks as a service
	}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{ca.leaf("localhost", time.Now().AddDate(1, 0, 0))}}
	server.StartTLS()
	defer server.Close()
	opt := alone(h, "d1")
	opt.HTTPSAddr = server.Listener.Addr().String()
	opt.Roots.AddCert(ca.cert.Leaf)
	expect(t, examine(t, opt), doctor.CheckWebSocket, doctor.Warning, `the answer is "501 Not Implemented"$`, "let WebSocket through")
	opt.WebSocket = true
	expect(t, examine(t, opt), doctor.CheckWebSocket, doctor.Failed, "", "")

	opt = asService(h, "service")
	opt.HTTPSAddr, opt.NoAMQPS = server.Listener.Addr().String(), true
	opt.Roots.AddCert(ca.cert.Leaf)
	expect(t, examine(t, opt), doctor.CheckAMQP, doctor.Warning, `^no AMQP over WebSocket: .*501 Not Implemented$`, "port 5671")
}

func TestClocks(t *testing.T) {
	off := func(d time.Duration) hubtest.Option {
		c := clock.New()
		c.Advance(d)
		return hubtest.WithOptions(node.Options{Clock: c})
	}
	t.Run("an hour and a half behind", func(t *testing.T) {
		h := hubtest.New(t, off(90*time.Minute))
		for name, opt := range map[string]doctor.Options{"device": asDevice(h, "d1"), "device alone": alone(h, "d2"), "service": asService(h, "service")} {
			t.Run(name, func(t *testing.T) {
				checks := examine(t, opt)
				expect(t, checks, doctor.CheckClock, doctor.Failed, `^this machine's clock is 1h(30m\ds|29m5\ds) behind the hub's$`, "^set this machine's clock")
				expect(t, checks, doctor.CheckCredential, doctor.Failed, "refuses it: this machine's clock, which dates the token, is 1h.* behind the hub's$", "^set this machine's clock")
				expectOK(t, checks, doctor.CheckClock, doctor.CheckCredential)
			})
		}
	})
	t.Run("an hour off", func(t *testing.T) {
		for _, d := range []time.Duration{time.Hour, -time.Hour} {
			h := hubtest.New(t, off(d))
			checks := examine(t, asDevice(h, "d1"))
			expect(t, checks, doctor.CheckClock, doctor.Failed, `^this machine's clock is (1h0m\ds|59m5\ds) (behind|ahead of) the hub's$`, "^set this machine's clock")
		}
	})
	t.Run("two minutes off", func(t *testing.T) {
		h := hubtest.New(t, off(2*time.Minute))
		checks := examine(t, asDevice(h, "d1"))
		expect(t, checks, doctor.CheckClock, doctor.Warning, "behind the hub's; hubs allow 5m0s$", "")
		expectOK(t, checks, doctor.CheckClock)
	})
	t.Run("so wrong that the hub's certificate is not valid", func(t *testing.T) {
		h := hubtest.New(t)
		opt := asDevice(h, "d1")
		opt.Now = func() time.Time { return time.Now().Add(-10 * 365 * 24 * time.Hour) }
		checks := examine(t, opt)
		expect(t, checks, doctor.CheckMQTTTLS, doctor.Failed, "by the hub's it is: the clock is 87600h0m0s behind the hub's|by the hub's it is: the clock is 8\\d+h.* behind", "^set this machine's clock")
		expect(t, checks, doctor.CheckClock, doctor.Failed, "", "")
	})
}

func TestCredentials(t *testing.T) {
	h := hubtest.New(t)
	change := func(id string, spec hub.IdentitySpec) {
		t.Helper()
		if _, err := h.PutIdentity(hub.ID{Device: id}, spec, hub.Match{Any: true}); err != nil {
			t.Fatal(err)
		}
	}
	h.Device("off")
	change("off", hub.IdentitySpec{Status: hub.StatusDisabled})
	owner := h.Policy("iothubowner")
	token := func(c sas.ConnectionString, audience string, expiry time.Time) sas.ConnectionString {
		text, err := sas.Sign(audience, c.SharedAccessKeyName, c.SharedAccessKey, expiry)
		if err != nil {
			t.Fatal(err)
		}
		c.SharedAccessKey, c.SharedAccessKeyName, c.SharedAccessSignature = "", "", sas.Secret(text)
		return c
	}
	wrongKey := h.Device("d1")
	wrongKey.SharedAccessKey = sas.NewKey()
	unknown := h.Device("d1")
	unknown.DeviceID = "D1"
	module := h.Module("d1", "m1")
	noModule := module
	noModule.ModuleID = "m2"
	wrongPolicy := owner
	wrongPolicy.SharedAccessKey = sas.NewKey()
	for _, tt := range []struct {
		name           string
		conn           sas.ConnectionString
		alone          bool
		check          string
		detail, remedy string
	}{
		{"a wrong key", wrongKey, false, doctor.CheckCredential, `the key is none of those that the registry has for device "d1"$`, "take the connection string anew"},
		{"a wrong key, and nobody to ask", wrongKey, true, doctor.CheckCredential, `the key is wrong, or device "d1" is unknown or disabled$`, "IOTHUB_CONNECTION_STRING"},
		{"a disabled device", h.Device("off"), false, doctor.CheckCredential, `device "off" is disabled$`, "enable it"},
		{"a disabled device in the registry", h.Device("off"), false, doctor.CheckDevice, `device "off" is disabled$`, "enable it"},
		{"a device that does not exist", unknown, false, doctor.CheckCredential, `the registry has no device "D1"$`, "whose case counts"},
		{"a module that does not exist", noModule, false, doctor.CheckDevice, `the registry has no module "m2" of device "d1"$`, "module create"},
		{"the key of a policy that is wrong", wrongPolicy, false, doctor.CheckCredential, `the key of policy "iothubowner" is wrong, or there is no such policy`, "compare"},
		{"a token that has ended", token(h.Device("d1"), "localhost/devices/d1", time.Now().Add(-time.Hour)), false, doctor.CheckCredential, "refuses it: expiry: .*, 1h0m.* ago", "sign a new one"},
		{"a token for another device", token(h.Device("d1"), "localhost/devices/d2", time.Now().Add(time.Hour)), false, doctor.CheckToken, "it is for another device or module", "sign for localhost/devices/d1"},
		{"a device's token for a service", token(sas.ConnectionString{HostName: owner.HostName, SharedAccessKey: h.Device("d1").SharedAccessKey}, "localhost/devices/d1", time.Now().Add(time.Hour)),
			false, doctor.CheckToken, "it is a device's token, and this is a service's call", "policy such as service"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			opt := doctor.Options{Connection: tt.conn, MQTTSAddr: h.MQTTSAddr, HTTPSAddr: h.HTTPSAddr, AMQPSAddr: h.AMQPSAddr, Roots: h.RootCAs()}
			if !tt.alone && tt.conn.DeviceID != "" {
				opt.Registry = owner
			}
			checks := examine(t, opt)
			expect(t, checks, tt.check, doctor.Failed, tt.detail, tt.remedy)
			expectOK(t, checks, doctor.CheckCredential, doctor.CheckDevice, doctor.CheckToken,
				doctor.CheckConnection) // it tells of the refusals before
			if c := checks[tt.check]; tt.check != doctor.CheckDevice && !c.Refused {
				t.Error("it is not a refusal")
			}
		})
	}
	t.Run("a module, which is asked over MQTT", func(t *testing.T) {
		opt := doctor.Options{Connection: module, MQTTSAddr: h.MQTTSAddr, HTTPSAddr: h.HTTPSAddr, AMQPSAddr: h.AMQPSAddr, Roots: h.RootCAs(), Registry: owner}
		expect(t, examine(t, opt), doctor.CheckCredential, doctor.Skipped, "--connect", "")
		opt.Connect, opt.Stay = true, time.Millisecond
		expect(t, examine(t, opt), doctor.CheckConnection, doctor.OK, `the hub accepted module "m1" of device "d1"`, "")
		opt.Connection.SharedAccessKey = h.Device("d1").SharedAccessKey // its device's is as good
		expect(t, examine(t, opt), doctor.CheckConnection, doctor.OK, `the hub accepted module "m1" of device "d1"`, "")
		opt.Connection.SharedAccessKey = sas.NewKey()
		checks := examine(t, opt)
		expect(t, checks, doctor.CheckConnection, doctor.Failed, `none of those that the registry has`, "")
		if !checks[doctor.CheckConnection].Refused {
			t.Error("it is not a refusal")
		}
	})
}

// rival keeps connecting as the device until the test ends. It returns when it
// has done so once.
func rival(t *testing.T, h *hubtest.Hub, id string) *mqttdevice.Client {
	t.Helper()
	c, err := mqttdevice.New(mqttdevice.Options{ConnectionString: h.Device(id), Addr: h.MQTTSAddr, TLS: h.ClientTLS()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestTwoProgramsWithOneID(t *testing.T) {
	t.Run("seen in the registry", func(t *testing.T) {
		h := hubtest.New(t)
		rival(t, h, "d1")
		rival(t, h, "d1")
		opt := asDevice(h, "d1")
		opt.Stay = time.Minute
		checks := examine(t, opt)
		expect(t, checks, doctor.CheckConnection, doctor.Failed, `^device "d1" connected anew twice within .*: it looks as if two programs connect with this id`, "^find the other program")
		expectOK(t, checks, doctor.CheckConnection)
	})
	t.Run("seen by a service", func(t *testing.T) {
		h := hubtest.New(t)
		rival(t, h, "d1")
		rival(t, h, "d1")
		opt := asService(h, "iothubowner")
		opt.Device, opt.Stay = hubrest.Target{DeviceID: "d1"}, time.Minute
		expect(t, examine(t, opt), doctor.CheckConnection, doctor.Failed, "two programs", "")
	})
	t.Run("felt by a device that is thrown out", func(t *testing.T) {
		h := hubtest.New(t)
		rival(t, h, "d1")
		opt := alone(h, "d1")
		opt.Connect, opt.Stay = true, time.Minute
		expect(t, examine(t, opt), doctor.CheckConnection, doctor.Failed, `ended the connection after .*: another program has connected with this id$`, "find the other program")
	})
	// meanwhile runs doctor on a connected device, and do while it watches.
	meanwhile := func(t *testing.T, do func(*hubtest.Hub, *mqttdevice.Client)) (last doctor.Check) {
		h := hubtest.New(t)
		c := rival(t, h, "d1")
		opt := asDevice(h, "d1")
		opt.Stay = time.Millisecond
		doctor.Run(t.Context(), opt, doctor.Progress{
			Begin: func(what string) {
				if strings.Contains(what, "connection") {
					do(h, c)
				}
			},
			Done: func(c doctor.Check) { last = c },
		})
		return last
	}
	t.Run("one program that starts anew", func(t *testing.T) {
		c := meanwhile(t, func(h *hubtest.Hub, c *mqttdevice.Client) { c.Close(); rival(t, h, "d1") })
		expect(t, map[string]doctor.Check{c.Name: c}, doctor.CheckConnection, doctor.Warning, `^device "d1" connected anew within 1ms`, "--stay 2m")
	})
	t.Run("one program that ends", func(t *testing.T) {
		c := meanwhile(t, func(h *hubtest.Hub, c *mqttdevice.Client) {
			c.Close()
			for h.ConnectionState(hub.ID{Device: "d1"}).Connected {
				runtime.Gosched()
			}
		})
		expect(t, map[string]doctor.Check{c.Name: c}, doctor.CheckConnection, doctor.OK, `^device "d1" has just disconnected$`, "")
	})
	t.Run("one program is left alone", func(t *testing.T) {
		h := hubtest.New(t)
		rival(t, h, "d1")
		since := h.ConnectionState(hub.ID{Device: "d1"}).Changed
		opt := asDevice(h, "d1")
		opt.Stay = 10 * time.Millisecond
		expect(t, examine(t, opt), doctor.CheckConnection, doctor.OK, "did not change", "")
		if now := h.ConnectionState(hub.ID{Device: "d1"}); !now.Connected || !now.Changed.Equal(since) {
			t.Error("doctor ended the connection of the device")
		}
	})
}

func TestInterrupted(t *testing.T) {
	h := hubtest.New(t)
	ctx, cancel := context.WithCancel(t.Context())
	checks := doctor.Run(ctx, asDevice(h, "d1"), doctor.Progress{Done: func(c doctor.Check) {
		if c.Name == doctor.CheckClock {
			cancel()
		}
	}})
	if last := checks[len(checks)-1]; last.Name != doctor.CheckClock {
		t.Errorf("it went on to %s: %s", last.Name, last.Detail)
	}
}
