package console_test

import (
	"context"
	"encoding/json"
	"strings"

	"golang.org/x/net/html"

	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/mqttdevice"
)

// device has a device be there until the test ends.
func (s *site) device(id string, methods map[string]mqttdevice.MethodHandler) *mqttdevice.Client {
	s.Helper()
	d, err := mqttdevice.New(mqttdevice.Options{ConnectionString: s.hub.Device(id), Addr: s.hub.MQTTSAddr, TLS: s.hub.ClientTLS()})
	if err != nil {
		s.Fatal(err)
	}
	for name, m := range methods {
		d.HandleMethod(name, m)
	}
	if err := d.Connect(s.Context()); err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { d.Close() })
	return d
}

// report has a device report properties.
func (s *site) report(id string, patch map[string]any) {
	s.Helper()
	if _, err := s.device(id, nil).PatchReported(s.Context(), patch); err != nil {
		s.Fatal(err)
	}
}

// send has a device send a message.
func (s *site) send(id, body string, properties map[string]string) {
	s.Helper()
	if err := s.device(id, nil).Send(s.Context(), mqttdevice.Message{Payload: []byte(body), Properties: properties}); err != nil {
		s.Fatal(err)
	}
}

// answering returns a method that answers with a status and a payload.
func answering(status int, payload string) mqttdevice.MethodHandler {
	return func(context.Context, mqttdevice.Method) mqttdevice.Response {
		return mqttdevice.Response{Status: status, Payload: json.RawMessage(payload)}
	}
}

// shows fails unless a page shows the keys of a device or, if it should not, if it shows one.
func (s *site) shows(d *doc, device hubrest.Device, want bool) {
	s.Helper()
	for _, key := range []string{string(device.Authentication.SymmetricKey.PrimaryKey), string(device.Authentication.SymmetricKey.SecondaryKey)} {
		if got := strings.Contains(textOf(d.root), key); got != want {
			s.Errorf("%s shows a key: %v, want %v", d.url, got, want)
		}
	}
}

// rawText is the text of an element with its blanks.
func rawText(n *html.Node) string {
	var b strings.Builder
	for c := range n.Descendants() {
		if c.Type == html.TextNode {
			b.WriteString(c.Data)
		}
	}
	return b.String()
}

// module has a module be there until the test ends.
func (s *site) module(on hubrest.Target) *mqttdevice.Client {
	s.Helper()
	d, err := mqttdevice.New(mqttdevice.Options{ConnectionString: s.hub.Module(on.DeviceID, on.ModuleID), Addr: s.hub.MQTTSAddr, TLS: s.hub.ClientTLS()})
	if err != nil {
		s.Fatal(err)
	}
	if err := d.Connect(s.Context()); err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { d.Close() })
	return d
}
