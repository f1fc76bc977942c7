package console_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/iotdm/iotdm/mqttdevice"
)

func TestADirectMethodIsCalled(t *testing.T) {
	s := newSite(t)
	s.create("off")
	s.device("d1", map[string]mqttdevice.MethodHandler{
		"echo": func(_ context.Context, m mqttdevice.Method) mqttdevice.Response {
			return mqttdevice.Response{Status: 200, Payload: m.Payload}
		},
		"refuse": answering(409, `{"message":"busy"}`),
	})
	call := func(device string, form ...string) *doc {
		t.Helper()
		return s.post("/device/"+device+"/methods", append([]string{"timeout", "5", "connect", "0"}, form...)...)
	}
	d := call("d1", "name", "echo", "payload", `{"n": 12345678901234567890}`)
	d.says("echo was answered with status 200.")
	d.says(`{ "n": 12345678901234567890 }`)
	if name, payload := d.value("form", "/device/d1/methods", "name"), d.value("form", "/device/d1/methods", "payload"); name != "echo" || payload != `{"n": 12345678901234567890}` {
		t.Errorf("the form has %q, %q", name, payload)
	}
	call("d1", "name", "echo").says("null")
	d = call("d1", "name", "refuse")
	d.says("Refuse was answered with status 409")
	d.says("busy")
	d = call("off", "name", "echo")
	d.says("It is not connected")
	d.saysNot("409") // a call on another device
	names := ""
	for _, option := range d.all("option") {
		if value, _ := attribute(option, "value"); value != "" {
			names += value + " "
		}
	}
	if names != "echo refuse " {
		t.Errorf("the names that are remembered: %q", names)
	}
	if d := s.post("/device/nobody/methods", "name", "x", "timeout", "5", "connect", "0"); d.status != http.StatusNotFound {
		t.Errorf("a method of nobody: status %d", d.status)
	}
	for _, form := range [][]string{
		{"name", ""}, {"name", "x", "payload", "{"}, {"name", "x", "payload", "hello"}, {"name", "x", "timeout", "4"}, {"name", "x", "timeout", "301"},
		{"name", "x", "connect", "-1"}, {"name", "x", "connect", "x"},
	} {
		fields := map[string]string{"timeout": "5", "connect": "0"}
		for i := 0; i < len(form); i += 2 {
			fields[form[i]] = form[i+1]
		}
		d := s.post("/device/d1/methods", "name", fields["name"], "payload", fields["payload"], "timeout", fields["timeout"], "connect", fields["connect"])
		if d.status != http.StatusUnprocessableEntity || len(d.all("p", "role", "alert")) != 1 {
			t.Errorf("%q: status %d", form, d.status)
		}
	}
}

func TestARebootHasItsVerdict(t *testing.T) {
	s := newSite(t)
	var device *mqttdevice.Client
	asked, calls := make(chan struct{}, 1), 0
	device = s.device("d1", map[string]mqttdevice.MethodHandler{
		"rebootDevice": func(context.Context, mqttdevice.Method) mqttdevice.Response {
			asked <- struct{}{}
			calls++
			return mqttdevice.Response{Status: 200, Payload: json.RawMessage(fmt.Sprintf(`{"requestId":"r-%d"}`, calls))}
		},
		"refuse": answering(503, `{"message":"not now"}`),
	})
	report := func(patch string) {
		t.Helper()
		if _, err := device.PatchReported(t.Context(), json.RawMessage(patch)); err != nil {
			t.Fatal(err)
		}
	}
	shows := func(path, words string) {
		t.Helper()
		until(t, func() bool { return strings.Contains(s.get(path).text("main"), words) })
	}
	form := []string{"name", "rebootDevice", "timeout", "5", "connect", "0"}
	report(`{"rebootTime":"2026-01-01T00:00:00Z"}`)
	s.post("/device/d1/reboot", form...)
	<-asked
	shows("/device/d1/reboot", "answered")
	s.post("/device/d1/reboot", form...).says("A reboot of this device is under way")
	report(`{"reboot":{"requestId":"r-1","outcome":"rebooting"}}`)
	shows("/device/d1/reboot", "rebooting")
	report(`{"reboot":{"requestId":"r-1","outcome":"rebooted"},"rebootTime":"2026-01-02T00:00:00Z"}`)
	shows("/device/d1/reboot", "rebooted Asked for")
	s.get("/device/d1/reboot").says("2026-01-02T00:00:00Z")

	s.post("/device/d1/reboot", form...)
	<-asked
	report(`{"reboot":{"requestId":"r-2","outcome":"notRebooted","reason":"<i>why</i>"}}`)
	shows("/device/d1/reboot", "came back without a reboot Asked for")
	s.get("/device/d1/reboot").says("<i>why</i>")

	s.post("/device/d1/reboot", "name", "refuse", "timeout", "5", "connect", "0")
	shows("/device/d1/reboot", "refused Asked for")
	s.get("/device/d1/reboot").says("not now")

	s.create("off")
	s.post("/device/off/reboot", form...)
	shows("/device/off/reboot", "It is not connected")
	if d := s.post("/device/d1/reboot", "name", "", "timeout", "5", "connect", "0"); d.status != http.StatusUnprocessableEntity {
		t.Errorf("without a method: status %d", d.status)
	}
	s.post("/device/nobody/reboot", form...)
	if d := s.try("/device/nobody/reboot"); d.status != http.StatusNotFound {
		t.Errorf("a reboot of nobody: status %d", d.status)
	}
}
