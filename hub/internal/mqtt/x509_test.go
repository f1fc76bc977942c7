package mqtt_test

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
)

// deviceCertificate is the self-signed certificate of a device.
var deviceCertificate = wiretest.Issue("device", nil, time.Now().Add(time.Hour))

// dialCertificate connects with a client certificate, or with none.
func dialCertificate(t *testing.T, h *hubtest.Hub, certificate *tls.Certificate) *wiretest.Client {
	t.Helper()
	config := h.ClientTLS()
	config.ServerName = "localhost"
	if certificate != nil {
		config.Certificates = []tls.Certificate{*certificate}
	}
	return wiretest.DialTLSConfig(t, h, config)
}

func withoutPassword(p *packets.ConnectPacket) { p.Password, p.PasswordFlag = nil, false }

func TestSelfSignedCertificates(t *testing.T) {
	h := hubtest.New(t)
	expired := wiretest.Issue("device", nil, time.Now().Add(-time.Hour))
	other := wiretest.Issue("device", nil, time.Now().Add(time.Hour))
	sum256 := sha256.Sum256(deviceCertificate.Certificate[0])
	sha256Print := strings.ToUpper(hex.EncodeToString(sum256[:]))
	sha1Print, expiredPrint, otherPrint := wiretest.Thumbprint(deviceCertificate), wiretest.Thumbprint(expired), wiretest.Thumbprint(other)
	wiretest.Create(t, h.Node, hub.ID{Device: "sha1"}, hub.IdentitySpec{Auth: hub.Authentication{X509: hub.X509Thumbprint{Primary: &sha1Print}}})
	wiretest.Create(t, h.Node, hub.ID{Device: "sha256"}, hub.IdentitySpec{Auth: hub.Authentication{X509: hub.X509Thumbprint{Primary: &sha256Print}}})
	wiretest.Create(t, h.Node, hub.ID{Device: "second"}, hub.IdentitySpec{Auth: hub.Authentication{X509: hub.X509Thumbprint{Primary: &otherPrint, Secondary: &sha1Print}}})
	wiretest.Create(t, h.Node, hub.ID{Device: "expired"}, hub.IdentitySpec{Auth: hub.Authentication{X509: hub.X509Thumbprint{Primary: &expiredPrint}}})
	key := h.Device("key")
	for _, tt := range []struct {
		name        string
		device      string
		certificate *tls.Certificate
		change      func(*packets.ConnectPacket)
		want        byte
	}{
		{"SHA-1", "sha1", &deviceCertificate, withoutPassword, 0},
		{"SHA-256 in capitals", "sha256", &deviceCertificate, withoutPassword, 0},
		{"the secondary thumbprint", "second", &deviceCertificate, withoutPassword, 0},
		{"an empty password", "sha1", &deviceCertificate, func(p *packets.ConnectPacket) { p.PasswordFlag = true }, 0},
		{"another certificate", "sha1", &other, withoutPassword, 5},
		{"an expired certificate", "expired", &expired, withoutPassword, 5},
		{"no certificate", "sha1", nil, withoutPassword, 5},
		{"a certificate for a device with keys", "key", &deviceCertificate, withoutPassword, 5},
		{"a token for a device with a certificate", "sha1", &deviceCertificate, func(p *packets.ConnectPacket) {
			p.PasswordFlag, p.Password = true, token(t, "localhost/devices/sha1", "", key.SharedAccessKey, time.Now().Add(time.Hour))
		}, 5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := dialCertificate(t, h, tt.certificate)
			if got := d.Connack(hub.ID{Device: tt.device}, tt.change); got != tt.want {
				t.Errorf("CONNACK %d, want %d", got, tt.want)
			}
		})
	}
	t.Run("a new thumbprint ends the connection", func(t *testing.T) {
		d := dialCertificate(t, h, &deviceCertificate)
		if got := d.Connack(hub.ID{Device: "sha1"}); got != 0 {
			t.Fatalf("CONNACK %d, want 0", got)
		}
		spec := hub.IdentitySpec{Auth: hub.Authentication{X509: hub.X509Thumbprint{Primary: &otherPrint}}}
		if _, err := h.PutIdentity(hub.ID{Device: "sha1"}, spec, hub.Match{Any: true}); err != nil {
			t.Fatal(err)
		}
		d.WantClosed()
	})
	t.Run("over WebSocket", func(t *testing.T) {
		d := wiretest.DialWebSocket(t, h, deviceCertificate)
		if got := d.Connack(hub.ID{Device: "sha256"}); got != 0 {
			t.Errorf("CONNACK %d, want 0", got)
		}
	})
}
