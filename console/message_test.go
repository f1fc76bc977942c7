package console_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/console"
	"github.com/iotdm/iotdm/mqttdevice"
)

func TestMessagesReachTheDevice(t *testing.T) {
	for _, way := range []string{"AMQP", "HTTPS"} {
		t.Run(way, func(t *testing.T) {
			s := newSite(t, func(o *console.Options) {
				if way == "HTTPS" {
					o.Events = nil
				}
			})
			s.create("d1")
			d := s.post("/device/d1/messages", "body", "hello <b>", "properties", "a=1\n\n b = x = y \n", "type", "text/plain", "message", "m-1",
				"correlation", "c-1", "ack", "full", "minutes", "5")
			d.says("The message waits for the device")
			d.says("1 message waits")
			got := make(chan mqttdevice.CloudToDeviceMessage, 1)
			c, err := mqttdevice.New(mqttdevice.Options{ConnectionString: s.hub.Device("d1"), Addr: s.hub.MQTTSAddr, TLS: s.hub.ClientTLS()})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.HandleMessage(func(_ context.Context, m mqttdevice.CloudToDeviceMessage) error {
				got <- m
				return nil
			})
			if err := c.Connect(t.Context()); err != nil {
				t.Fatal(err)
			}
			m := <-got
			if string(m.Payload) != "hello <b>" || m.ContentType != "text/plain" || m.ID != "m-1" || m.CorrelationID != "c-1" {
				t.Errorf("the device got %+v", m)
			}
			if diff := cmp.Diff(map[string]string{"a": "1", "b": "x = y"}, m.Properties); diff != "" {
				t.Errorf("properties (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWaitingMessagesArePurged(t *testing.T) {
	s := newSite(t)
	s.create("d1")
	for range 3 {
		s.post("/device/d1/messages", "body", "x", "minutes", "5")
	}
	s.get("/device/d1/messages").says("3 messages wait")
	s.post("/device/d1/purge", "confirm", "d2").says(`type "d1" to confirm`)
	s.get("/device/d1/messages").says("3 messages wait")
	d := s.post("/device/d1/purge", "confirm", "d1")
	d.says("Messages thrown away: 3.")
	d.says("0 messages wait")
}

func TestMessagesThatCannotBeSentStayInTheForm(t *testing.T) {
	s := newSite(t)
	s.create("d1")
	for _, tt := range []struct{ field, value, want string }{
		{"minutes", "0", "A message waits for 1 to 2880 minutes"},
		{"minutes", "x", "A message waits for 1 to 2880 minutes"},
		{"ack", "some", "Feedback is none, positive, negative or full"},
		{"properties", "no value", "is not NAME=VALUE"},
		{"body", strings.Repeat("x", 64<<10+1), "A message is at most 64 KiB"},
	} {
		form := map[string]string{"body": "hello", "minutes": "5", "ack": "", "properties": ""}
		form[tt.field] = tt.value
		d := s.post("/device/d1/messages", "body", form["body"], "minutes", form["minutes"], "ack", form["ack"], "properties", form["properties"])
		if d.status != http.StatusUnprocessableEntity {
			t.Errorf("%s: status %d", tt.field, d.status)
		}
		d.says(tt.want)
		if got := d.value("form", "/device/d1/messages", "body"); got != form["body"] {
			t.Errorf("%s: the form has lost its message: %.40q", tt.field, got)
		}
	}
	s.get("/device/d1/messages").says("0 messages wait")
	if d := s.post("/device/nobody/messages", "body", "x", "minutes", "5"); d.status != http.StatusNotFound {
		t.Errorf("a message to nobody: status %d", d.status)
	}
}
