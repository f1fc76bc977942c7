package hub_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/sas"
)

// what is an incident without time and address.
func what(i *hub.Incident) string {
	if i == nil {
		return "none"
	}
	return i.Door + " " + i.Reason + ": " + i.Detail
}

func wantRefused(t *testing.T, h *node.Node, id hub.ID, want string) {
	t.Helper()
	refused, _ := h.Incidents(t.Context(), id)
	if got := what(refused); got != want {
		t.Errorf("%s was refused last for %q, want %q", id, got, want)
	}
	if refused != nil && (!strings.HasPrefix(refused.Remote, "127.0.0.1:") || time.Since(refused.Time) > time.Minute) {
		t.Errorf("%s was refused at %v, from %s", id, refused.Time, refused.Remote)
	}
}

// wantEnded waits for the end of a connection.
func wantEnded(t *testing.T, h *node.Node, id hub.ID, want string) {
	t.Helper()
	var got string
	for deadline := time.Now().Add(wiretest.Patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		_, ended := h.Incidents(t.Context(), id)
		if got = what(ended); got == want {
			return
		}
	}
	t.Errorf("the connection of %s ended last for %q, want %q", id, got, want)
}

func TestWhyADeviceIsRefused(t *testing.T) {
	h := hubtest.New(t)
	id := hub.ID{Device: "d1"}
	cs := h.Device("d1")
	h.Module("d1", "m1")
	wiretest.Create(t, h.Node, hub.ID{Device: "off"}, hub.IdentitySpec{Status: hub.StatusDisabled})
	h.Device("x1")
	wrong := cs
	wrong.SharedAccessKey = sas.Key("d3Jvbmcgd3Jvbmcgd3Jvbmc=")
	sign := func(cs sas.ConnectionString, life time.Duration) string {
		return wiretest.Sign(t, cs.Audience(), "", cs.SharedAccessKey, time.Now().Add(life))
	}
	wantRefused(t, h.Node, id, "none")

	for _, tt := range []struct {
		name   string
		id     hub.ID
		change func(*packets.ConnectPacket)
		want   string
	}{
		{"a wrong key", id, func(p *packets.ConnectPacket) { p.Password = []byte(sign(wrong, time.Hour)) },
			"mqtts unauthorized: the signature is not from a key of d1"},
		{"a token that is over", id, func(p *packets.ConnectPacket) { p.Password = []byte(sign(cs, -time.Hour)) },
			"mqtts unauthorized: the token expired at " + time.Now().Add(-time.Hour).UTC().Format("2006-01-02T15")},
		{"no token", id, func(p *packets.ConnectPacket) { p.Password, p.PasswordFlag = nil, false },
			"mqtts unauthorized: neither a token nor a client certificate"},
		{"no shared access signature", id, func(p *packets.ConnectPacket) { p.Password = []byte(cs.SharedAccessKey) },
			`mqtts unauthorized: token is not "SharedAccessSignature", one blank and the fields`},
		{"another hub", id, func(p *packets.ConnectPacket) { p.Username = "example.azure-devices.net/d1/?api-version=2021-04-12" },
			`mqtts unauthorized: "example.azure-devices.net" is not a name of this hub`},
		{"a user name for nobody", id, func(p *packets.ConnectPacket) { p.Username = "d1" },
			`mqtts unauthorized: the user name is not the hub's name, "/" and the client id`},
		{"an old api-version", id, func(p *packets.ConnectPacket) { p.Username = "localhost/d1/?api-version=soon" },
			`mqtts unauthorized: unknown api-version "soon"`},
		{"MQTT 3.1", id, func(p *packets.ConnectPacket) { p.ProtocolName, p.ProtocolVersion = "MQIsdp", 3 },
			`mqtts unauthorized: unknown api-version "soon"`}, // whose it is was not looked at
		{"a will for another", id, func(p *packets.ConnectPacket) {
			p.Password = []byte(sign(cs, time.Hour))
			p.WillFlag, p.WillTopic, p.WillMessage = true, "devices/d2/messages/events/", []byte("bye")
		}, "mqtts unauthorized: will: the topic is none that this identity may publish to"},
		{"a disabled device", hub.ID{Device: "off"}, nil, "mqtts unauthorized: device off is disabled"},
		{"a module without a key", hub.ID{Device: "d1", Module: "m1"}, nil, "mqtts unauthorized: neither a token nor a client certificate"},
		{"somebody unknown", hub.ID{Device: "nobody"}, nil, "none"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			change := tt.change
			if change == nil {
				change = func(*packets.ConnectPacket) {}
			}
			c := wiretest.DialTLS(t, h)
			if code := c.Connack(tt.id, func(p *packets.ConnectPacket) { p.PasswordFlag = true }, change); code == 0 {
				t.Fatal("it is accepted")
			}
			refused, _ := h.Incidents(t.Context(), tt.id)
			if got := what(refused); !strings.HasPrefix(got, tt.want) {
				t.Errorf("%s was refused last for %q, want %q", tt.id, got, tt.want)
			}
		})
	}
	if r := h.Refusals(t.Context()); len(r.Recent) != 12 || r.Recent[0].ID.Device != "nobody" || r.Recent[0].Detail != "DeviceNotFound: nobody" || r.Counts["unauthorized"] != 11 || r.Counts["violation"] != 1 {
		t.Errorf("refusals: %+v", r)
	}

	t.Run("over AMQP by CBS", func(t *testing.T) {
		c := wiretest.OpenAMQP(t, h, wiretest.DialAMQPTCP(t, h))
		if status := c.PutToken(cs.Audience(), sign(wrong, time.Hour)); status != 401 {
			t.Errorf("the token is answered with %d, want 401", status)
		}
		wantRefused(t, h.Node, id, "amqps unauthorized: the signature is not from a key of d1")
		c = wiretest.OpenAMQP(t, h, wiretest.DialAMQPWebSocket(t, h))
		c.PutToken(cs.Audience(), sign(cs, -time.Hour))
		refused, _ := h.Incidents(t.Context(), id)
		if got := what(refused); !strings.HasPrefix(got, "amqp-websocket unauthorized: the token expired at ") {
			t.Errorf("refused for %q", got)
		}
	})
	t.Run("over AMQP by SASL PLAIN", func(t *testing.T) {
		nc := wiretest.DialAMQPTCP(t, h)
		response := "\x00d1@sas.localhost\x00" + sign(wrong, time.Hour)
		init := append([]byte{0x00, 0x53, 0x41, 0xd0, 0, 0, 0, byte(0), 0, 0, 0, 2, 0xa3, 5}, "PLAIN"...)
		init = append(init, 0xb0, 0, 0, byte(len(response)>>8), byte(len(response)))
		init = append(init, response...)
		body := len(init) - 8
		init[6], init[7] = byte(body>>8), byte(body)
		frame := append([]byte{0, 0, byte((len(init) + 8) >> 8), byte(len(init) + 8), 2, 1, 0, 0}, init...)
		if _, err := nc.Write(append([]byte("AMQP\x03\x01\x00\x00"), frame...)); err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, nc) // until it is closed
		wantRefused(t, h.Node, id, "amqps unauthorized: the signature is not from a key of d1")
	})
	t.Run("over AMQP by a link", func(t *testing.T) {
		c := wiretest.DialAMQP(t, h, h.Device("x1"))
		if s, err := c.NewSender(wiretest.WithPatience(t), "/devices/d1/messages/events", nil); err == nil {
			s.Close(t.Context())
			t.Fatal("x1 may send as d1")
		}
		wantRefused(t, h.Node, id, "amqps unauthorized: neither a token nor a client certificate for d1")
	})
	t.Run("no TLS that trusts the hub", func(t *testing.T) {
		nc, err := net.Dial("tcp", h.MQTTSAddr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		if _, err := nc.Write([]byte("GET / HTTP/1.1\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, nc)
		// The connection is closed before the refusal is kept.
		for deadline := time.Now().Add(wiretest.Patience); ; time.Sleep(time.Millisecond) {
			counts := h.Refusals(t.Context()).Counts
			if counts["tls"] == 1 {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("counts %v", counts)
			}
		}
	})
}

func TestWhyADeviceIsRefusedOverHTTPS(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	id := hub.ID{Device: "d1"}
	cs := h.Device("d1")
	for token, want := range map[string]string{
		"-": "https unauthorized: neither a token nor a client certificate",
		wiretest.Sign(t, cs.Audience(), "", "d3Jvbmcgd3Jvbmcgd3Jvbmc=", h.Now().Add(time.Hour)):  "https unauthorized: the signature is not from a key of d1",
		wiretest.Sign(t, "localhost/devices/d2", "", cs.SharedAccessKey, h.Now().Add(time.Hour)): "https unauthorized: the token is for another resource",
	} {
		h.Do(wiretest.Call{Method: "POST", Path: "/devices/d1/messages/events", Body: "x", Token: token}).WantError(t, 401, "IotHubUnauthorizedAccess", "Unauthorized")
		refused, _ := h.Incidents(t.Context(), id)
		if got := what(refused); got != want {
			t.Errorf("refused for %q, want %q", got, want)
		}
	}
	// A service is refused too, but no device is.
	h.Do(wiretest.Call{Method: "GET", Path: "/devices/d1", Token: wiretest.Sign(t, "localhost", "service", "d3Jvbmcgd3Jvbmcgd3Jvbmc=", h.Now().Add(time.Hour))}).WantError(t, 401, "IotHubUnauthorizedAccess", "Unauthorized")
	if got := h.Refusals(t.Context()).Recent[0]; got.ID != (hub.ID{}) || got.Detail != "the signature is not from a key of policy service" {
		t.Errorf("the last refusal is %+v", got)
	}

	if a := h.Do(wiretest.Call{Method: "GET", Path: "/iotdm/devices/d1/connection"}); a.Text(t, "connectionState") != "Disconnected" || a.Text(t, "lastRefusal.door") != "https" {
		t.Errorf("connection: %s", a.Body)
	}
	h.Do(wiretest.Call{Method: "GET", Path: "/iotdm/devices/d2/connection"}).WantError(t, 404, "DeviceNotFound", "*")
	h.Do(wiretest.Call{Method: "GET", Path: "/iotdm/devices/d1/modules/m1/connection"}).WantError(t, 404, "ModuleNotFound", "*")
	if a := h.Do(wiretest.Call{Method: "GET", Path: "/iotdm/refusals"}); a.Field(t, "counts.unauthorized") != json.Number("4") || !strings.Contains(a.Body, `"deviceId":"d1"`) {
		t.Errorf("refusals: %s", a.Body)
	}
}

func TestWhyAConnectionEnds(t *testing.T) {
	h := hubtest.New(t)
	id := hub.ID{Device: "d1"}
	cs := h.Device("d1")
	wantEnded(t, h.Node, id, "none")

	c := wiretest.DialTLS(t, h)
	c.Connect(cs)
	c.Disconnect()
	wantEnded(t, h.Node, id, "mqtts disconnected: the device disconnected")

	c = wiretest.DialWebSocket(t, h)
	c.Connect(cs)
	c.Close()
	wantEnded(t, h.Node, id, "websocket lost: the device closed the connection without DISCONNECT")

	c = wiretest.DialTLS(t, h)
	c.Connect(cs)
	c.SendBytes(0xf0, 0)
	wantEnded(t, h.Node, id, "mqtts violation: a device may not send packet type 15")

	// The one that took over has not ended, and then it is disabled.
	c = wiretest.DialTLS(t, h)
	c.Connect(cs)
	next := wiretest.DialAMQP(t, h, cs)
	next.Sender("/devices/d1/messages/events")
	c.WantClosed()
	if _, err := h.PutIdentity(id, hub.IdentitySpec{Status: hub.StatusDisabled}, hub.Match{Any: true}); err != nil {
		t.Fatal(err)
	}
	wantEnded(t, h.Node, id, "amqps revoked: the identity was disabled or deleted, or its credentials changed")
	wantRefused(t, h.Node, id, "none")
}

func TestIncidentsOutliveTheHub(t *testing.T) {
	folder := node.Folder(t.TempDir())
	id, gone := hub.ID{Device: "d1"}, hub.ID{Device: "d2"}
	why := hub.ErrUnauthorizedAccess.With("because")
	peer := func(id hub.ID) hub.Peer { return hub.Peer{ID: id, Door: "mqtts", Remote: "192.0.2.1:1"} }
	n, err := node.New(node.Options{Storage: folder})
	if err != nil {
		t.Fatal(err)
	}
	wiretest.Create(t, n, id, hub.IdentitySpec{})
	wiretest.Create(t, n, gone, hub.IdentitySpec{})
	n.Detach(attach(t, n, id), "closed", errGone)
	n.Refused(peer(id), "unauthorized", why)
	n.Refused(peer(gone), "unauthorized", why)
	refused, ended := n.Incidents(t.Context(), id)
	if err := n.DeleteIdentity(gone, hub.Match{Any: true}); err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	n = wiretest.NewNode(t, node.Options{Storage: folder})
	wiretest.Create(t, n, gone, hub.IdentitySpec{})
	storedRefused, storedEnded := n.Incidents(t.Context(), id)
	for _, pair := range [][2]*hub.Incident{{refused, storedRefused}, {ended, storedEnded}} {
		if pair[0] == nil || pair[1] == nil {
			t.Fatalf("forgotten: %v became %v", pair[0], pair[1])
		}
		pair[0].Time = pair[0].Time.UTC().Round(0)
		if diff := cmp.Diff(*pair[0], *pair[1]); diff != "" {
			t.Errorf("stored (-want +got):\n%s", diff)
		}
	}
	if refused, ended := n.Incidents(t.Context(), gone); refused != nil || ended != nil {
		t.Errorf("a new device has the incidents of the one before it: %v, %v", refused, ended)
	}
}

func TestAFloodOfRefusalsIsBounded(t *testing.T) {
	n := wiretest.NewNode(t, node.Options{})
	wiretest.Create(t, n, hub.ID{Device: "d1"}, hub.IdentitySpec{})
	long := hub.ErrUnauthorizedAccess.With("%s", strings.Repeat("x", 1<<16))
	for i := range 5000 {
		n.Refused(hub.Peer{ID: hub.ID{Device: fmt.Sprint("unknown-", i)}}, "unauthorized", long)
	}
	n.Refused(hub.Peer{ID: hub.ID{Device: "d1"}}, "unauthorized", long)
	r := n.Refusals(t.Context())
	size := 0
	for _, r := range r.Recent {
		size += len(r.ID.Device) + len(r.Detail)
	}
	if len(r.Recent) != 20 || size > 20<<10 || r.Counts["unauthorized"] != 5001 {
		t.Errorf("%d refusals of %d bytes are kept, counts %v", len(r.Recent), size, r.Counts)
	}
	if pending := n.PendingRefusals(); pending != 1 {
		t.Errorf("%d refusals wait to be stored, want the one of an identity that exists", pending)
	}
}
