package mqtt_test

import (
	"encoding/json"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/sas"
)

// everyCharacter holds all punctuation that an id may have.
const everyCharacter = "a-:.+%_#*?!(),=@;$'z"

func token(t testing.TB, audience, policy string, key sas.Key, expiry time.Time) []byte {
	t.Helper()
	s, err := sas.Sign(audience, policy, key, expiry)
	if err != nil {
		t.Fatal(err)
	}
	return []byte(s)
}

func TestUserNames(t *testing.T) {
	h := hubtest.New(t)
	h.Device("d1")
	for _, tt := range []struct {
		name     string
		cs       sas.ConnectionString
		userName string
	}{
		{"Python", h.Device("d1"), "localhost/d1/?api-version=2019-10-01&DeviceClientType=azure-iot-device-iothub-py%2F2.14.0%283.11.2%3BLinux%3Bx86_64%29"},
		{"Node, the model id not encoded", h.Device("d1"), "localhost/d1/?api-version=2021-04-12&model-id=dtmi:com:example:Thermostat;1&DeviceClientType=azure-iot-device%2F1.18.4%20(node%20v20.20.2)"},
		{"Go, without a question mark", h.Device("d1"), "localhost/d1/api-version=2020-09-30"},
		{"an unescaped slash in the client type", h.Device("d1"), "localhost/d1/api-version=2016-11-14&DeviceClientType=iothubclient/1.1.0"},
		{"the oldest form", h.Device("d1"), "localhost/d1"},
		{"a question mark and nothing", h.Device("d1"), "localhost/d1/?"},
		{"the host in capitals, with a port", h.Device("d1"), "LOCALHOST:8883/d1/?api-version=2021-04-12"},
		{"a module", h.Module("d1", "m1"), "localhost/d1/m1/?api-version=2021-04-12"},
		{"a module, without a question mark", h.Module("d1", "m1"), "localhost/d1/m1/api-version=2018-06-30"},
		{"every character", h.Module(everyCharacter, everyCharacter), "localhost/" + everyCharacter + "/" + everyCharacter + "/?api-version=2021-04-12"},
		{"an id that looks like a query", h.Device("?api-version=1"), "localhost/?api-version=1/?api-version=2021-04-12"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := wiretest.DialTLS(t, h)
			d.Connect(tt.cs, func(p *packets.ConnectPacket) { p.Username = tt.userName })
			d.Disconnect()
		})
	}
	if got := modelID(t, h, hub.ID{Device: "d1"}); got != "" {
		t.Errorf("model id %q, want none: the last connection had none", got)
	}
}

func modelID(t *testing.T, h *hubtest.Hub, id hub.ID) string {
	t.Helper()
	v, err := h.Twin(id)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var doc struct{ ModelID string }
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	return doc.ModelID
}

func TestModelIDIsStored(t *testing.T) {
	h := hubtest.New(t)
	for _, userName := range []string{
		"localhost/d1/?api-version=2021-04-12&model-id=dtmi:com:example:Thermostat;1&DeviceClientType=x",
		"localhost/d1/?api-version=2021-04-12&DeviceClientType=x&model-id=dtmi%3Acom%3Aexample%3AThermostat%3B1",
	} {
		d := wiretest.DialTLS(t, h)
		d.Connect(h.Device("d1"), func(p *packets.ConnectPacket) { p.Username = userName })
		if got, want := modelID(t, h, hub.ID{Device: "d1"}), "dtmi:com:example:Thermostat;1"; got != want {
			t.Errorf("user name %s: model id %q, want %q", userName, got, want)
		}
	}
}

func TestRefusedConnections(t *testing.T) {
	h := hubtest.New(t)
	cs, module := h.Device("d1"), h.Module("d1", "m1")
	wiretest.Create(t, h.Node, hub.ID{Device: "off"}, hub.IdentitySpec{Status: hub.StatusDisabled})
	off, upper := h.Device("off"), h.Device("Dev-X")
	print := wiretest.Thumbprint(deviceCertificate)
	wiretest.Create(t, h.Node, hub.ID{Device: "d1", Module: "own"}, hub.IdentitySpec{Auth: hub.Authentication{X509: hub.X509Thumbprint{Primary: &print}}})
	wiretest.Create(t, h.Node, hub.ID{Device: "d1", Module: "ca"}, hub.IdentitySpec{Auth: hub.Authentication{Type: hub.AuthCertificateAuthority}})
	selfSigned := sas.ConnectionString{HostName: "localhost", DeviceID: "d1", ModuleID: "own", SharedAccessKey: cs.SharedAccessKey}
	ofCA := sas.ConnectionString{HostName: "localhost", DeviceID: "d1", ModuleID: "ca", SharedAccessKey: cs.SharedAccessKey}
	service := h.Policy("service")
	hour := time.Now().Add(time.Hour)
	for _, tt := range []struct {
		name   string
		cs     sas.ConnectionString
		change func(p *packets.ConnectPacket)
		want   byte
	}{
		{"another key", cs, func(p *packets.ConnectPacket) { p.Password = token(t, cs.Audience(), "", sas.NewKey(), hour) }, 5},
		{"an expired token", cs, func(p *packets.ConnectPacket) {
			p.Password = token(t, cs.Audience(), "", cs.SharedAccessKey, time.Now().Add(-sas.Skew-time.Minute))
		}, 5},
		{"a token of another device", cs, func(p *packets.ConnectPacket) {
			p.Password = token(t, "localhost/devices/d2", "", cs.SharedAccessKey, hour)
		}, 5},
		{"a policy without DeviceConnect", cs, func(p *packets.ConnectPacket) {
			p.Password = token(t, "localhost", "service", service.SharedAccessKey, hour)
		}, 5},
		{"a password that is no token", cs, func(p *packets.ConnectPacket) { p.Password = []byte("secret") }, 5},
		{"no credential", cs, func(p *packets.ConnectPacket) { p.Password, p.PasswordFlag = nil, false }, 5},
		{"a disabled device", off, func(*packets.ConnectPacket) {}, 5},
		{"an unknown device", cs, func(p *packets.ConnectPacket) {
			p.ClientIdentifier, p.Username = "nobody", "localhost/nobody/?api-version=2021-04-12"
		}, 5},
		{"a module's key for its device", cs, func(p *packets.ConnectPacket) {
			p.Password = token(t, cs.Audience(), "", module.SharedAccessKey, hour)
		}, 5},
		{"a module's key for another module", h.Module("d1", "m2"), func(p *packets.ConnectPacket) {
			p.Password = token(t, "localhost/devices/d1", "", module.SharedAccessKey, hour)
		}, 5},
		{"another device's key for a module", module, func(p *packets.ConnectPacket) {
			p.Password = token(t, module.Audience(), "", h.Device("d2").SharedAccessKey, hour)
		}, 5},
		{"another device's token for a module", module, func(p *packets.ConnectPacket) {
			p.Password = token(t, "localhost/devices/d2", "", h.Device("d2").SharedAccessKey, hour)
		}, 5},
		{"a device's token for another of its modules", module, func(p *packets.ConnectPacket) {
			p.Password = token(t, "localhost/devices/d1/modules/m2", "", cs.SharedAccessKey, hour)
		}, 5},
		{"an expired token of a module's device", module, func(p *packets.ConnectPacket) {
			p.Password = token(t, cs.Audience(), "", cs.SharedAccessKey, time.Now().Add(-sas.Skew-time.Minute))
		}, 5},
		{"a device's key under a policy's name for its module", module, func(p *packets.ConnectPacket) {
			p.Password = token(t, "localhost/devices/d2", "device", cs.SharedAccessKey, hour)
		}, 5},
		{"a device's token for a module with a certificate", selfSigned, func(p *packets.ConnectPacket) {
			p.Password = token(t, cs.Audience(), "", cs.SharedAccessKey, hour)
		}, 5},
		{"a device's token for a module with a CA's certificate", ofCA, func(p *packets.ConnectPacket) {
			p.Password = token(t, ofCA.Audience(), "", cs.SharedAccessKey, hour)
		}, 5},
		{"a device's token for a module that is not there", sas.ConnectionString{HostName: "localhost", DeviceID: "d1", ModuleID: "nobody", SharedAccessKey: cs.SharedAccessKey}, func(*packets.ConnectPacket) {}, 5},
		{"a disabled device's token for its module", h.Module("off", "m1"), func(p *packets.ConnectPacket) {
			p.Password = token(t, off.Audience(), "", off.SharedAccessKey, hour)
		}, 5},
		{"a policy's token for the device without devices", cs, func(p *packets.ConnectPacket) {
			p.Password = token(t, "localhost/d1", "device", h.Policy("device").SharedAccessKey, hour)
		}, 5},
		{"a policy's token in lower case", upper, func(p *packets.ConnectPacket) {
			p.Password = token(t, "localhost/devices/dev-x", "device", h.Policy("device").SharedAccessKey, hour)
		}, 5},
		{"another hub's name", cs, func(p *packets.ConnectPacket) { p.Username = "other.example/d1/?api-version=2021-04-12" }, 5},
		{"a client id that is not the user name's", cs, func(p *packets.ConnectPacket) { p.ClientIdentifier = "d2" }, 5},
		{"a user name of the device's module", cs, func(p *packets.ConnectPacket) { p.Username = "localhost/d1/m1/?api-version=2021-04-12" }, 5},
		{"a user name that goes on without a slash", cs, func(p *packets.ConnectPacket) { p.Username = "localhost/d1?api-version=2021-04-12" }, 5},
		{"an unknown api-version", cs, func(p *packets.ConnectPacket) { p.Username = "localhost/d1/?api-version=latest" }, 5},
		{"no user name", cs, func(p *packets.ConnectPacket) { p.UsernameFlag, p.PasswordFlag = false, false }, 5},
		{"no client id", cs, func(p *packets.ConnectPacket) { p.ClientIdentifier = "" }, 5},
		{"an id with an illegal character", cs, func(p *packets.ConnectPacket) { p.ClientIdentifier = "d 1" }, 5},
		{"MQTT 3.1, as Python tries after a refusal", cs, func(p *packets.ConnectPacket) { p.ProtocolName, p.ProtocolVersion = "MQIsdp", 3 }, 1},
		{"MQTT 5", cs, func(p *packets.ConnectPacket) { p.ProtocolVersion = 5 }, 1},
		{"a will for another topic", cs, func(p *packets.ConnectPacket) { p.WillFlag, p.WillTopic = true, "devices/d2/messages/events/" }, 5},
		{"a will with QoS 2", cs, func(p *packets.ConnectPacket) {
			p.WillFlag, p.WillTopic, p.WillQos = true, "devices/d1/messages/events/", 2
		}, 5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := wiretest.DialTLS(t, h)
			p := wiretest.ConnectPacket(t, tt.cs)
			tt.change(p)
			d.Send(p)
			ack := wiretest.Receive[*packets.ConnackPacket](d)
			if ack.ReturnCode != tt.want || ack.SessionPresent {
				t.Errorf("CONNACK %d, session present %v, want %d, false", ack.ReturnCode, ack.SessionPresent, tt.want)
			}
			d.WantClosed()
		})
	}
	if h.ConnectedDevices() != 0 {
		t.Errorf("%d devices are connected", h.ConnectedDevices())
	}
}

func TestCredentials(t *testing.T) {
	h := hubtest.New(t)
	cs, module, upper := h.Device("d1"), h.Module("d1", "m1"), h.Device("Dev-X")
	wiretest.Create(t, h.Node, hub.ID{Device: "d1", Module: "none"}, hub.IdentitySpec{Auth: hub.Authentication{Type: hub.AuthNone}})
	none := sas.ConnectionString{HostName: "localhost", DeviceID: "d1", ModuleID: "none", SharedAccessKey: cs.SharedAccessKey}
	wiretest.Create(t, h.Node, hub.ID{Device: "edge"}, hub.IdentitySpec{IoTEdge: true})
	agent := h.Device("edge")
	agent.ModuleID = hub.EdgeAgent
	i, err := h.Identity(hub.ID{Device: "d1"})
	if err != nil {
		t.Fatal(err)
	}
	device := h.Policy("device")
	hour := time.Now().Add(time.Hour)
	for _, tt := range []struct {
		name     string
		cs       sas.ConnectionString
		password []byte
	}{
		{"the secondary key", cs, token(t, cs.Audience(), "", i.Auth.SymmetricKey.Secondary, hour)},
		{"the device key over the hub's name", cs, token(t, "localhost", "", cs.SharedAccessKey, hour)},
		{"a policy with DeviceConnect", cs, token(t, "localhost", "device", device.SharedAccessKey, hour)},
		{"a policy for one device", cs, token(t, cs.Audience(), "device", device.SharedAccessKey, hour)},
		{"a policy for a module", module, token(t, "localhost/devices", "device", device.SharedAccessKey, hour)},
		{"the device's key for its module", module, token(t, module.Audience(), "", cs.SharedAccessKey, hour)},
		{"the device's secondary key for its module", module, token(t, module.Audience(), "", i.Auth.SymmetricKey.Secondary, hour)},
		{"the device's token for its module", module, token(t, cs.Audience(), "", cs.SharedAccessKey, hour)},
		{"the device's token for its module, without devices", module, token(t, "localhost/d1", "", cs.SharedAccessKey, hour)},
		{"the device's key for a module without authentication", none, token(t, none.Audience(), "", cs.SharedAccessKey, hour)},
		{"the device's key for a system module", agent, token(t, agent.Audience(), "", agent.SharedAccessKey, hour)},
		{"a resource in lower case", upper, token(t, "localhost/devices/dev-x", "", upper.SharedAccessKey, hour)},
		{"a resource without devices", cs, token(t, "localhost/d1", "", cs.SharedAccessKey, hour)},
		{"a resource that is encoded twice", module, token(t, "localhost%2Fdevices%2Fd1%2Fmodules%2Fm1", "", module.SharedAccessKey, hour)},
		{"a policy's that is encoded twice", module, token(t, "localhost%2Fdevices%2Fd1", "device", device.SharedAccessKey, hour)},
		{"a token within the skew", cs, token(t, cs.Audience(), "", cs.SharedAccessKey, time.Now().Add(-sas.Skew+time.Minute))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			wiretest.EachTransport(t, h, func(t *testing.T, dial func() *wiretest.Client) {
				dial().Connect(tt.cs, func(p *packets.ConnectPacket) { p.Password = tt.password })
			})
		})
	}
}

// What ends a module's connection that its device's key opened, and what does
// not.
func TestModuleConnectionEndsWithItsDevicesKey(t *testing.T) {
	h := hubtest.New(t)
	id := hub.ID{Device: "d1"}
	for _, tt := range []struct {
		name   string
		change func(module hub.ID) error
		ends   bool
	}{
		{"the device's primary key is made anew", func(hub.ID) error { _, err := h.RegenerateKeys(id, true, false); return err }, true},
		{"the device's secondary key is made anew", func(hub.ID) error { _, err := h.RegenerateKeys(id, false, true); return err }, false},
		{"the module's keys are made anew", func(module hub.ID) error { _, err := h.RegenerateKeys(module, true, true); return err }, false},
		{"the device gets a certificate", func(hub.ID) error {
			_, err := h.PutIdentity(id, hub.IdentitySpec{Auth: hub.Authentication{Type: hub.AuthCertificateAuthority}}, hub.Match{Any: true})
			return err
		}, true},
		{"the module gets a certificate", func(module hub.ID) error {
			_, err := h.PutIdentity(module, hub.IdentitySpec{Auth: hub.Authentication{Type: hub.AuthCertificateAuthority}}, hub.Match{Any: true})
			return err
		}, true},
		{"the device is disabled", func(hub.ID) error {
			_, err := h.PutIdentity(id, hub.IdentitySpec{Status: hub.StatusDisabled}, hub.Match{Any: true})
			return err
		}, true},
		{"the module is deleted", func(module hub.ID) error { return h.DeleteIdentity(module, hub.Match{}) }, true},
		{"the device is deleted", func(hub.ID) error { return h.DeleteIdentity(id, hub.Match{}) }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cs, module := h.Device("d1"), h.Module("d1", "m1")
			d, neighbour := wiretest.DialTLS(t, h), wiretest.DialTLS(t, h)
			neighbour.Connect(cs)
			module.SharedAccessKey = cs.SharedAccessKey
			d.Connect(module)
			if err := tt.change(hub.ID{Device: "d1", Module: "m1"}); err != nil {
				t.Fatal(err)
			}
			if tt.ends {
				d.WantClosed()
			} else {
				d.Settled()
			}
			h.DeleteIdentity(id, hub.Match{}) // for the next case
		})
	}
}

func TestModulesOwnKeyAndItsDevicesTakeOver(t *testing.T) {
	h := hubtest.New(t)
	cs, module := h.Device("d1"), h.Module("d1", "m1")
	byDevice := module
	byDevice.SharedAccessKey = cs.SharedAccessKey
	first, second, third := wiretest.DialTLS(t, h), wiretest.DialTLS(t, h), wiretest.DialTLS(t, h)
	first.Connect(module)
	second.Connect(byDevice)
	first.WantClosed()
	third.Connect(module)
	second.WantClosed()
	third.Settled()
}

func TestEventSaysWhoseKeyAModuleUsed(t *testing.T) {
	h := hubtest.New(t)
	cs, module := h.Device("d1"), h.Module("d1", "m1")
	byDevice := module
	byDevice.SharedAccessKey = cs.SharedAccessKey
	for _, tt := range []struct {
		cs    sas.ConnectionString
		scope string
	}{{module, "module"}, {byDevice, "device"}} {
		d := wiretest.DialTLS(t, h)
		d.Connect(tt.cs)
		d.Publish("devices/d1/modules/m1/messages/events/", tt.scope)
		d.Disconnect()
	}
	i, err := h.Identity(hub.ID{Device: "d1", Module: "m1"})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][2]string{}
	for _, e := range wiretest.Telemetry(t, h.Node, "d1") {
		got[string(e.Body)] = [2]string{e.AuthMethod, e.Generation}
	}
	want := map[string][2]string{}
	for _, scope := range []string{"module", "device"} {
		want[scope] = [2]string{`{"scope":"` + scope + `","type":"sas","issuer":"iothub"}`, i.GenerationID}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("auth methods and generations (-want +got):\n%s", diff)
	}
}

func TestConnectionEndsWithItsCredential(t *testing.T) {
	h := hubtest.New(t)
	for _, tt := range []struct {
		name   string
		module bool
		change func(id hub.ID) error
	}{
		{"the device is disabled", false, func(id hub.ID) error {
			_, err := h.PutIdentity(id, hub.IdentitySpec{Status: hub.StatusDisabled}, hub.Match{Any: true})
			return err
		}},
		{"the device of a module is disabled", true, func(id hub.ID) error {
			_, err := h.PutIdentity(hub.ID{Device: id.Device}, hub.IdentitySpec{Status: hub.StatusDisabled}, hub.Match{Any: true})
			return err
		}},
		{"the device is deleted", false, func(id hub.ID) error { return h.DeleteIdentity(id, hub.Match{}) }},
		{"the device of a module is deleted", true, func(id hub.ID) error {
			return h.DeleteIdentity(hub.ID{Device: id.Device}, hub.Match{})
		}},
		{"the module is deleted", true, func(id hub.ID) error { return h.DeleteIdentity(id, hub.Match{}) }},
		{"the key is changed", false, func(id hub.ID) error {
			_, err := h.PutIdentity(id, hub.IdentitySpec{Auth: hub.Authentication{
				SymmetricKey: hub.SymmetricKey{Primary: sas.NewKey(), Secondary: sas.NewKey()},
			}}, hub.Match{Any: true})
			return err
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h.Device("d1")
			id, cs := hub.ID{Device: "d1"}, h.Device("d1")
			if tt.module {
				id, cs = hub.ID{Device: "d1", Module: "m1"}, h.Module("d1", "m1")
			}
			d := wiretest.DialTLS(t, h)
			d.Connect(cs)
			if err := tt.change(id); err != nil {
				t.Fatal(err)
			}
			d.WantClosed()
			h.DeleteIdentity(hub.ID{Device: "d1"}, hub.Match{}) // for the next case
		})
	}
}

func TestConnectionEndsWhenItsTokenExpires(t *testing.T) {
	h := hubtest.New(t)
	cs := h.Device("d1")
	d := wiretest.DialTLS(t, h)
	d.Connect(cs, func(p *packets.ConnectPacket) {
		p.Password = token(t, cs.Audience(), "", cs.SharedAccessKey, time.Now().Add(2*time.Second-sas.Skew))
	})
	d.WantClosed()
}

func TestTakeover(t *testing.T) {
	h := hubtest.New(t)
	wiretest.EachTransport(t, h, func(t *testing.T, dial func() *wiretest.Client) {
		cs, module := h.Device("d1"), h.Module("d1", "m1")
		first, other := dial(), dial()
		first.Connect(cs)
		other.Connect(module)
		second := dial()
		second.Connect(cs)
		first.WantClosed()
		// A refused newcomer takes nothing over, and a module is an identity of its own.
		third := dial()
		p := wiretest.ConnectPacket(t, cs)
		p.Password = []byte("wrong")
		third.Send(p)
		wiretest.Receive[*packets.ConnackPacket](third)
		for _, d := range []*wiretest.Client{second, other} {
			d.Send(packets.NewControlPacket(packets.Pingreq))
			wiretest.Receive[*packets.PingrespPacket](d)
		}
		if !h.ConnectionState(hub.ID{Device: "d1"}).Connected {
			t.Error("the device is not connected")
		}
	})
}

// TestAnIdleConnectionIsOneGoroutine waits for the goroutines that accepted the
// connections to end.
func TestAnIdleConnectionIsOneGoroutine(t *testing.T) {
	h := hubtest.New(t)
	before := runtime.NumGoroutine()
	const devices = 20
	for i := range devices {
		wiretest.DialTLS(t, h).Connect(h.Device("d" + strconv.Itoa(i)))
	}
	for began := time.Now(); runtime.NumGoroutine() > before+devices; runtime.Gosched() {
		if time.Since(began) > wiretest.Patience {
			t.Fatalf("%d goroutines for %d connections", runtime.NumGoroutine()-before, devices)
		}
	}
}
