package mqttdevice

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// testCertificate returns a certificate for host that vouches for itself.
func testCertificate(t *testing.T, host string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		DNSNames:              []string{host},
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}

func TestPacketsThatWouldHurtEndTheConnection(t *testing.T) {
	tests := []struct {
		name string
		sent []byte
		want string
	}{
		{"a length that nobody has memory for", []byte{0x30, 0xff, 0xff, 0xff, 0x7f}, "too large"},
		{"a length that never ends", []byte{0x30, 0x80, 0x80, 0x80, 0x80, 0x01}, "too large"},
		{"a SUBACK with too many codes", []byte{0x90, 6, 0, 1, 0, 0, 0, 0}, "SUBACK"},
		{"a PUBLISH whose topic is longer than it", []byte{0x30, 3, 0xff, 0xff, 'x'}, "publish"},
		{"a packet type that does not exist", []byte{0xf0, 0}, "unsupported packet type"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPeer(t)
				c, far, events := connected(t, p, nil)
				defer c.Close()
				if _, err := far.Write(tt.sent); err != nil {
					t.Logf("peer: %v", err) // the client may hang up in the middle
				}
				if got := events.await(Disconnected); !strings.Contains(got.Reason.Error(), tt.want) {
					t.Errorf("connection ended with %v, want %q", got.Reason, tt.want)
				}
			})
		})
	}
}

func TestSubackWithTooManyCodesWhileSubscribing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		c, events := device(t, p, Options{})
		defer c.Close()
		go c.Connect(t.Context())
		far := <-p.conns
		next[*packets.ConnectPacket](far)
		far.connack(packets.Accepted)
		far.suback(next[*packets.SubscribePacket](far), 0, 0, 0, 0)
		if got := events.await(Disconnected); !strings.Contains(got.Reason.Error(), "SUBACK") {
			t.Errorf("connection ended with %v, want a word about SUBACK", got.Reason)
		}
	})
}

// Framing must neither panic nor depend on how the stream is cut, and must not object to anything
// that paho writes.
func FuzzFraming(f *testing.F) {
	f.Add([]byte{0x30, 3, 0, 1, 'x', 0xd0, 0}, 1)
	f.Add([]byte{0x90, 5, 0, 1, 0, 0, 0}, 3)
	f.Add([]byte{0x30, 0xff, 0xff, 0xff, 0xff, 0xff}, 2)
	f.Fuzz(func(t *testing.T, stream []byte, cut int) {
		var whole, parts framing
		cut = max(0, min(cut, len(stream)))
		want := whole.check(stream)
		got := parts.check(stream[:cut])
		if got == nil {
			got = parts.check(stream[cut:])
		}
		if (want == nil) != (got == nil) {
			t.Errorf("check(%x) is %v in one piece and %v when cut at %d", stream, want, got, cut)
		}

		var valid bytes.Buffer
		p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
		p.TopicName, p.Payload = "t", stream
		if err := p.Write(&valid); err != nil {
			t.Fatal(err)
		}
		if err := new(framing).check(valid.Bytes()); err != nil && len(stream) < maxPacket-8 {
			t.Errorf("check refuses a PUBLISH of %d bytes: %v", len(stream), err)
		}
	})
}
