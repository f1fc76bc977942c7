package console_test

import (
	"strings"
	"testing"

	"github.com/iotdm/iotdm/console"
	"github.com/iotdm/iotdm/sas"
)

func TestMQTTSettingsHaveAPasswordForWhoAsks(t *testing.T) {
	s := newSite(t, func(o *console.Options) {
		o.HostName, o.MQTTSAddr, o.HTTPSAddr = "hub.localhost:8443", "127.0.0.1:18883", "127.0.0.1:8443"
	})
	key := s.create("d1").Authentication.SymmetricKey.PrimaryKey
	s.createModule("d1", "m1")
	d := s.get("/device/d1/mqtt")
	for _, words := range []string{"Port 18883", "hub.localhost/d1/?api-version=2021-04-12", "wss://hub.localhost:8443/$iothub/websocket", "devices/d1/messages/devicebound/#"} {
		d.says(words)
	}
	d.saysNot("SharedAccessSignature")
	d = s.post("/device/d1/mqtt", "minutes", "30")
	token, err := sas.ParseToken(textOf(d.one("code", "id", "password")))
	if err != nil || !token.SignedBy(key) || !token.Covers("hub.localhost/devices/d1") {
		t.Errorf("the password is for %s: %v", token.Resource, err)
	}
	s.get("/device/d1/mqtt").saysNot("SharedAccessSignature")
	module := s.get("/device/d1/module/m1/mqtt")
	module.says("devices/d1/modules/m1/messages/events/")
	module.saysNot("devicebound")
	if d := s.post("/device/d1/mqtt", "minutes", "0"); !strings.Contains(d.text("main"), "1 to 5256000 minutes") {
		t.Errorf("no minutes: %s", d.text("main"))
	}
}
