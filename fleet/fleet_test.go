package fleet_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/fleet"
	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/mqttdevice"
	"github.com/iotdm/iotdm/sas"
)

const size = 20

func name(i int) string { return fmt.Sprintf("sim-%d", i+1) }

// devices are the first n devices of h, which it then has.
func devices(h *hubtest.Hub, n int) []mqttdevice.Options {
	list := make([]mqttdevice.Options, n)
	for i := range list {
		list[i] = mqttdevice.Options{ConnectionString: h.Device(name(i)), Addr: h.MQTTSAddr, TLS: h.ClientTLS()}
	}
	return list
}

// start runs a fleet. The function it returns ends it and fails the test if Run failed.
func start(t *testing.T, opt fleet.Options) (f *fleet.Fleet, end func() fleet.Stats) {
	t.Helper()
	f, err := fleet.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	end = sync.OnceValue(func() fleet.Stats {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run returned %v", err)
		}
		return f.Stats()
	})
	t.Cleanup(func() { end() })
	return f, end
}

// follow returns the events of h, those that are past included.
func follow(t *testing.T, h *hubtest.Hub) func(enough func(hub.Event) bool) {
	t.Helper()
	events := make(chan hub.Event)
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() {
		for e, err := range h.Events(ctx, hub.EventQuery{Follow: true}) {
			if err != nil {
				return // ctx has ended
			}
			e.Body = append([]byte(nil), e.Body...)
			select {
			case events <- e:
			case <-ctx.Done():
			}
		}
	})
	t.Cleanup(func() { cancel(); group.Wait() })
	return func(enough func(hub.Event) bool) {
		t.Helper()
		for limit := time.After(time.Minute); ; {
			select {
			case e := <-events:
				if enough(e) {
					return
				}
			case <-limit:
				t.Fatal("the hub did not see within a minute what was to come")
			}
		}
	}
}

// until returns when what f has done is enough.
func until(t *testing.T, f *fleet.Fleet, enough func(fleet.Stats) bool) {
	t.Helper()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for limit := time.After(time.Minute); !enough(f.Stats()); {
		select {
		case <-look.C:
		case <-limit:
			t.Fatalf("the fleet did not come so far within a minute: %+v", f.Stats())
		}
	}
}

// operation is what an event that the hub made tells of.
func operation(e hub.Event) string {
	for _, p := range e.Properties {
		if p.Name == "opType" {
			return p.Value
		}
	}
	return ""
}

// invoke calls a method on a device as soon as it is connected.
func invoke(t *testing.T, h *hubtest.Hub, device, method, payload string) string {
	t.Helper()
	call := hub.MethodCall{Name: method, Payload: json.RawMessage(payload), ResponseTimeout: time.Minute, ConnectTimeout: time.Minute}
	r, err := h.InvokeMethod(t.Context(), hub.ID{Device: device}, call)
	if err != nil {
		t.Errorf("%s on %s: %v", method, device, err)
	}
	return fmt.Sprint(r.Status, " ", string(r.Payload))
}

func rebootTime(t *testing.T, h *hubtest.Hub, device string) string {
	t.Helper()
	twin, err := h.Twin(hub.ID{Device: device})
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(twin)
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(body), `"rebootTime":"`)
	value, _, _ := strings.Cut(after, `"`)
	return value
}

const rebooted = `200 {"Response":"This is the response from the device"}`

func TestDevicesAnswerAndReboot(t *testing.T) {
	h := hubtest.New(t)
	await := follow(t, h)
	_, end := start(t, fleet.Options{Devices: devices(h, size), Seed: 7})
	for i := range size {
		if got := invoke(t, h, name(i), "ping", `{"a":1}`); got != `200 {"a":1}` {
			t.Errorf("%s answers ping with %s, want its payload", name(i), got)
		}
		if got := invoke(t, h, name(i), "rebootDevice", "null"); got != rebooted {
			t.Errorf("%s answers rebootDevice with %s, want %s", name(i), got, rebooted)
		}
		if at, err := time.Parse(time.RFC3339, rebootTime(t, h, name(i))); err != nil || time.Since(at) > time.Minute {
			t.Errorf("%s reports rebootTime %v (%v), want now", name(i), at, err)
		}
	}
	got := end()
	want := fleet.Stats{
		Devices: size, Seed: 7, Connected: size, Attempts: size, Connects: size,
		RegisterFailures: map[fleet.Kind]uint64{}, ConnectFailures: map[fleet.Kind]uint64{}, Disconnects: map[fleet.Kind]uint64{},
		Calls: 2 * size, Methods: map[string]uint64{"200": 2 * size}, Reboots: size, Patches: size,
		// Whatever they are; not zero.
		Seconds: got.Seconds, ConnectMs: got.ConnectMs, PatchMs: got.PatchMs,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("statistics (-want +got):\n%s", diff)
	}
	if l := got.ConnectMs; got.Seconds <= 0 || l.P50 <= 0 || l.P50 > l.P90 || l.P90 > l.P99 || l.P99 > l.Max {
		t.Errorf("after %v s the quantiles of connecting are %+v, want positive ones in order", got.Seconds, l)
	}
	gone := 0
	await(func(e hub.Event) bool {
		if operation(e) == "deviceDisconnected" {
			gone++
		}
		return gone == size
	})
}

func TestEveryMethodFails(t *testing.T) {
	h := hubtest.New(t)
	_, end := start(t, fleet.Options{Devices: devices(h, 2), FailRate: 1})
	for i := range 2 {
		if got := invoke(t, h, name(i), "reboot", "null"); !strings.HasPrefix(got, "500 ") {
			t.Errorf("%s answers %s, want status 500", name(i), got)
		}
		if got := rebootTime(t, h, name(i)); got != "" {
			t.Errorf("%s reports rebootTime %s although it failed", name(i), got)
		}
	}
	if got := end().Methods; !cmp.Equal(got, map[string]uint64{"500": 2}) {
		t.Errorf("methods %v, want two with status 500", got)
	}
}

func TestRebootingDevicesAreAway(t *testing.T) {
	h := hubtest.New(t)
	await := follow(t, h)
	f, end := start(t, fleet.Options{Devices: devices(h, 1), RebootOffline: true, RebootDuration: time.Millisecond})
	if got := invoke(t, h, name(0), "rebootDevice", "null"); got != rebooted {
		t.Errorf("the answer is %s, want %s", got, rebooted)
	}
	var seen []string
	await(func(e hub.Event) bool {
		seen = append(seen, operation(e))
		return operation(e) == "updateTwin"
	})
	if diff := cmp.Diff([]string{"deviceConnected", "deviceDisconnected", "deviceConnected", "updateTwin"}, seen[1:]); diff != "" {
		t.Errorf("what the hub saw (-want +got):\n%s", diff)
	}
	until(t, f, func(s fleet.Stats) bool { return s.Patches == 1 })
	if s := end(); s.Reconnects != 1 || len(s.Disconnects) != 0 {
		t.Errorf("%d reconnects, disconnects %v; want 1 and none: it left by itself", s.Reconnects, s.Disconnects)
	}
}

func TestDevicesGoAway(t *testing.T) {
	h := hubtest.New(t)
	await := follow(t, h)
	_, end := start(t, fleet.Options{Devices: devices(h, 3), OfflineRate: 0.5, OfflineDuration: time.Millisecond})
	gone := make(map[hub.ID]int)
	await(func(e hub.Event) bool {
		if operation(e) == "deviceDisconnected" {
			gone[e.From]++
		}
		return len(gone) == 3 && min(gone[hub.ID{Device: name(0)}], gone[hub.ID{Device: name(1)}], gone[hub.ID{Device: name(2)}]) > 2
	})
	if s := end(); s.Reconnects < 6 || len(s.Disconnects) != 0 {
		t.Errorf("%d reconnects, disconnects %v; want at least 6 and none", s.Reconnects, s.Disconnects)
	}
}

func TestTelemetry(t *testing.T) {
	h := hubtest.New(t)
	await := follow(t, h)
	_, end := start(t, fleet.Options{Devices: devices(h, 3), TelemetryInterval: time.Millisecond, Jitter: 0.5})
	next := make(map[string]uint64)
	await(func(e hub.Event) bool {
		if e.Source != hub.SourceTelemetry {
			return false
		}
		var m struct {
			DeviceID string
			Sequence uint64
		}
		if err := json.Unmarshal(e.Body, &m); err != nil || m.DeviceID != e.From.Device {
			t.Fatalf("%s sent %s (%v), want its own id in it", e.From.Device, e.Body, err)
		}
		if m.Sequence <= next[m.DeviceID] {
			t.Errorf("%s sent number %d after %d", m.DeviceID, m.Sequence, next[m.DeviceID])
		}
		next[m.DeviceID] = m.Sequence
		return min(next[name(0)], next[name(1)], next[name(2)]) > 5
	})
	if s := end(); s.Telemetry < 15 || s.LostMessages != 0 || s.TelemetryMs.Max <= 0 {
		t.Errorf("%d messages, %d lost, %v ms at most; want at least 15, none and more than 0", s.Telemetry, s.LostMessages, s.TelemetryMs.Max)
	}
}

func TestDesiredPropertiesAreReported(t *testing.T) {
	h := hubtest.New(t)
	await := follow(t, h)
	opt := fleet.Options{Devices: devices(h, 1), ReportDesired: true}
	if _, err := h.PatchTwin(hub.ID{Device: name(0)}, hub.TwinChange{Desired: json.RawMessage(`{"every":"5m"}`)}, hub.Match{Any: true}); err != nil {
		t.Fatal(err)
	}
	start(t, opt)
	await(func(e hub.Event) bool {
		return operation(e) == "updateTwin" && strings.Contains(string(e.Body), `"reported"`) && strings.Contains(string(e.Body), `"every":"5m"`)
	})
}

func TestAHubThatComesBack(t *testing.T) {
	folder := t.TempDir()
	var list []mqttdevice.Options
	var address string
	t.Run("first", func(t *testing.T) {
		h := hubtest.New(t, hubtest.WithOptions(node.Options{Storage: node.Folder(folder)}))
		list, address = devices(h, size), h.MQTTSAddr
	})
	kinds := make(chan fleet.Kind, 100)
	f, end := start(t, fleet.Options{Devices: list, OnTrouble: func(_ string, kind fleet.Kind, _ error) { kinds <- kind }})
	if got := <-kinds; got != fleet.Unreachable {
		t.Errorf("without a hub, the devices are not connected because %q, want %q", got, fleet.Unreachable)
	}
	h := hubtest.New(t, hubtest.WithOptions(node.Options{Storage: node.Folder(folder)}), hubtest.WithAddrs(address, "127.0.0.1:0"))
	until(t, f, func(s fleet.Stats) bool { return s.Connected == size })
	for i := range size {
		invoke(t, h, name(i), "ping", "null")
	}
	if s := f.Stats(); s.Connects != size || s.ConnectFailures[fleet.Unreachable] != s.Attempts-size {
		t.Errorf("with a hub: %+v, want %d devices connected, and all other attempts in vain", s, size)
	}
	end()
}

func TestEveryDeviceIsRefused(t *testing.T) {
	h := hubtest.New(t)
	list := devices(h, 3)
	for i := range list {
		list[i].ConnectionString.SharedAccessKey = sas.NewKey()
	}
	f, err := fleet.New(fleet.Options{Devices: list})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Run(t.Context()); !errors.Is(err, mqttdevice.ErrUnauthorized) {
		t.Errorf("Run returned %v, want %v", err, mqttdevice.ErrUnauthorized)
	}
	if got := f.Stats().ConnectFailures[fleet.Unauthorized]; got != 3 {
		t.Errorf("%d attempts were refused, want 3", got)
	}
}

func TestOneDeviceIsRefused(t *testing.T) {
	h := hubtest.New(t)
	list := devices(h, 3)
	list[1].ConnectionString.SharedAccessKey = sas.NewKey()
	troubled := make(chan string, 10)
	f, end := start(t, fleet.Options{Devices: list, OnTrouble: func(device string, kind fleet.Kind, _ error) { troubled <- device }})
	if got := <-troubled; got != name(1) {
		t.Errorf("trouble with %s, want %s", got, name(1))
	}
	until(t, f, func(s fleet.Stats) bool { return s.Connected == 2 && s.Away == 1 })
	end()
}

func TestAHubThatIsNotTrusted(t *testing.T) {
	h := hubtest.New(t)
	list := devices(h, 3)
	for i := range list {
		list[i].TLS = &tls.Config{RootCAs: hubtest.New(t).RootCAs()}
	}
	f, err := fleet.New(fleet.Options{Devices: list})
	if err != nil {
		t.Fatal(err)
	}
	var untrusted *tls.CertificateVerificationError
	if err := f.Run(t.Context()); !errors.As(err, &untrusted) {
		t.Errorf("Run returned %v, want a %T", err, untrusted)
	}
}

func TestTheEndDoesNotWaitForSlowDevices(t *testing.T) {
	for _, tt := range []struct {
		name string
		opt  fleet.Options
	}{
		{"a reboot", fleet.Options{RebootDuration: time.Hour}},
		{"an answer", fleet.Options{SlowRate: 1, AnswerDelay: time.Hour}},
		{"being away", fleet.Options{RebootOffline: true, RebootDuration: time.Hour}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := hubtest.New(t)
			tt.opt.Devices = devices(h, 1)
			f, end := start(t, tt.opt)
			until(t, f, func(s fleet.Stats) bool { return s.Connected == 1 })
			answer := make(chan string)
			go func() { answer <- invoke(t, h, name(0), "rebootDevice", "null") }()
			until(t, f, func(s fleet.Stats) bool { return s.Calls == 1 })
			began := time.Now()
			end()
			if took := time.Since(began); took > time.Minute {
				t.Errorf("the end took %v", took)
			}
			if got := <-answer; !strings.HasPrefix(got, "503 ") && !(tt.opt.RebootOffline && got == rebooted) {
				t.Errorf("the call was answered with %s, want status 503", got)
			}
		})
	}
}

func TestWrongOptions(t *testing.T) {
	key := sas.NewKey()
	device := func(id string) mqttdevice.Options {
		return mqttdevice.Options{ConnectionString: sas.ConnectionString{HostName: "h", DeviceID: id, SharedAccessKey: key}}
	}
	one := []mqttdevice.Options{device("a")}
	for _, tt := range []struct {
		name string
		opt  fleet.Options
		want string
	}{
		{"no devices", fleet.Options{}, "a fleet without devices"},
		{"a device twice", fleet.Options{Devices: append(one, device("b"), device("a"))}, `device "a" occurs twice`},
		{"a device that cannot work", fleet.Options{Devices: []mqttdevice.Options{{}}}, `device "": connection string: HostName and DeviceId are needed; is it the one of a device?`},
		{"a rate above 1", fleet.Options{Devices: one, FailRate: 1.5}, "FailRate 1.5 is not between 0 and 1"},
		{"a rate below 0", fleet.Options{Devices: one, OfflineRate: -0.1}, "OfflineRate -0.1 is not between 0 and 1"},
		{"a device that is never there", fleet.Options{Devices: one, OfflineRate: 1}, "OfflineRate 1 leaves the devices no time to be connected"},
		{"a ramp that goes down", fleet.Options{Devices: one, RampUp: -1}, "RampUp -1 is less than 0"},
		{"a negative duration", fleet.Options{Devices: one, RebootDuration: -1}, "a duration is less than 0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := fleet.New(tt.opt); err == nil || err.Error() != tt.want {
				t.Errorf("New returned %v, want %s", err, tt.want)
			}
		})
	}
}

func TestTheRampGoesOnAsTold(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts nobody
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	h := hubtest.New(t)
	list := devices(h, 3)
	for i := range list {
		list[i].Addr = l.Addr().String()
	}
	f, end := start(t, fleet.Options{Devices: list, RampUp: 0.001})
	if _, err := l.Accept(); err != nil {
		t.Fatal(err)
	}
	end()
	if s := f.Stats(); s.Waiting != 2 || s.Attempts != 1 {
		t.Errorf("%d wait and %d attempts were made after the first; want 2 and 1", s.Waiting, s.Attempts)
	}
}
