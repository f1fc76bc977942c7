package mqttsettings

import (
	"strings"
	"testing"
	"time"

	"github.com/iotdm/iotdm/sas"
)

func TestWhereAndWho(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	key := sas.Key("MDEyMzQ1Njc4OWFiY2RlZg==")
	for _, tt := range []struct {
		name, host    string
		module        string
		mqtts, https  string
		wantHost      string
		wantPort      int
		wantWebSocket string
		wantUser      string
	}{
		{"Azure", "h.azure-devices.net", "", "", "", "h.azure-devices.net", 8883, "wss://h.azure-devices.net/$iothub/websocket", "h.azure-devices.net/d#1/?api-version=2021-04-12"},
		{"a hub with ports of its own", "localhost:8443", "m", "127.0.0.1:1883", "127.0.0.1:8443", "localhost", 1883, "wss://localhost:8443/$iothub/websocket", "localhost/d#1/m/?api-version=2021-04-12"},
		{"an address of IPv6", "[::1]:443", "", "", "[::1]:443", "::1", 443, "wss://[::1]/$iothub/websocket", "::1/d#1/?api-version=2021-04-12"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := sas.ConnectionString{HostName: tt.host, DeviceID: "d#1", ModuleID: tt.module, SharedAccessKey: key}
			got, err := New(Source{Connection: c, MQTTSAddr: tt.mqtts, HTTPSAddr: tt.https}, time.Hour, now)
			if err != nil {
				t.Fatal(err)
			}
			if got.Host != tt.wantHost || got.Port != tt.wantPort || got.WebSocket != tt.wantWebSocket || got.UserName != tt.wantUser {
				t.Errorf("got %s, %d, %s, %s", got.Host, got.Port, got.WebSocket, got.UserName)
			}
			if !got.Expires.Equal(now.Add(time.Hour)) || !strings.HasPrefix(got.Password, "SharedAccessSignature ") {
				t.Errorf("the password ends at %v", got.Expires)
			}
			if (got.Topics.Messages == "") != (tt.module != "") || len(got.Topics.Rows()) < 7 {
				t.Errorf("topics %+v", got.Topics)
			}
		})
	}
	withCertificate, err := New(Source{Connection: sas.ConnectionString{HostName: "h", DeviceID: "d", X509: true}}, time.Hour, now)
	if err != nil || withCertificate.Password != "" || withCertificate.Expires != nil {
		t.Errorf("with a certificate: %v, a password until %v", err, withCertificate.Expires)
	}
	if _, err := New(Source{Connection: sas.ConnectionString{HostName: "h:x", DeviceID: "d", X509: true}}, time.Hour, now); err == nil {
		t.Error("a port that is no number is taken")
	}
}
