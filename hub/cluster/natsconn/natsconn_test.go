package natsconn_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/iotdm/iotdm/hub/cluster/natsconn"
	"github.com/iotdm/iotdm/hub/cluster/natstest"
)

func write(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// connect connects, with so much patience.
func connect(t *testing.T, patience time.Duration, opt natsconn.Options) (*natsconn.Conn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := natsconn.Connect(ctx, opt)
	if err == nil {
		t.Cleanup(c.Close)
	}
	return c, err
}

// says reports whether an error is one line with these words.
func says(t *testing.T, err error, words ...string) {
	t.Helper()
	text := fmt.Sprint(err)
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("%q does not say %q", text, w)
		}
	}
	if err == nil || strings.Contains(text, "\n") || strings.Contains(text, "secret") {
		t.Errorf("%q is not one line without secrets", text)
	}
}

func TestOptionsThatCannotBeUsed(t *testing.T) {
	creds := write(t, "user", "hub:secret\n")
	for _, tt := range []struct {
		opt  natsconn.Options
		want string
	}{
		{natsconn.Options{URL: ""}, "must be like nats://"},
		{natsconn.Options{URL: "nats://"}, "must be like nats://"},
		{natsconn.Options{URL: "nats://a:1,,nats://b:1"}, "must be like nats://"},
		{natsconn.Options{URL: "nats://a:1/path"}, "must be like nats://"},
		{natsconn.Options{URL: "https://a:1"}, "must be nats:// or tls://"},
		{natsconn.Options{URL: "nats://hub:secret@127.0.0.1"}, "--cluster-creds"},
		{natsconn.Options{URL: "nats://nats-1"}, "--cluster-creds"},
		{natsconn.Options{URL: "127.0.0.1:1,nats-1:1"}, "--cluster-creds"},
		{natsconn.Options{URL: "nats-1", Credentials: "/nowhere"}, "no such file"},
		{natsconn.Options{URL: "nats-1", Credentials: write(t, "empty", "")}, "must be the .creds of NATS"},
		{natsconn.Options{URL: "nats-1", Credentials: write(t, "lines", "hub:secret\nb:secret\n")}, "must be the .creds of NATS"},
		{natsconn.Options{URL: "nats-1", Credentials: creds, CA: "/nowhere"}, "no such file"},
		{natsconn.Options{URL: "nats-1", Credentials: creds, CA: creds}, "no certificate in PEM form"},
	} {
		_, err := connect(t, time.Second, tt.opt)
		says(t, err, tt.want)
	}
}

func TestNATSThatIsNotThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = connect(t, time.Second, natsconn.Options{URL: addr})
	if !errors.Is(err, natsconn.ErrUnreachable) {
		t.Errorf("the error is no ErrUnreachable: %v", err)
	}
	says(t, err, addr, "start it, or correct --cluster")
}

func TestCredentials(t *testing.T) {
	c := natstest.StartWith(t, 1, natstest.Settings{User: "hub", Password: "secret"})
	if _, err := connect(t, time.Minute, natsconn.Options{URL: c.URL(), Credentials: write(t, "user", "hub:secret\n")}); err != nil {
		t.Errorf("with credentials: %v", err)
	}
	for _, creds := range []string{"", write(t, "wrong", "hub:notsecret")} {
		_, err := connect(t, time.Minute, natsconn.Options{URL: c.URL(), Credentials: creds})
		if !errors.Is(err, natsconn.ErrUnauthorized) {
			t.Errorf("with %q: %v", creds, err)
		}
		if creds == "" {
			says(t, err, "--cluster-creds")
		} else {
			says(t, err, creds)
		}
	}
}

func TestAUserThatMayNotDoEnough(t *testing.T) {
	c := natstest.StartWith(t, 1, natstest.Settings{User: "hub", Password: "secret",
		Permissions: []natstest.Permission{{Publish: []string{"iotdm.>"}, Subscribe: []string{"iotdm.>"}}}})
	conn, err := connect(t, time.Minute, natsconn.Options{URL: c.URL(), Credentials: write(t, "user", "hub:secret\n")})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	_, err = conn.CheckStream(ctx, jetstream.StreamConfig{Name: "iotdm-log"})
	says(t, err, "may not do what the hub needs", "$JS.API.>")
}

func TestJetStreamThatIsOff(t *testing.T) {
	c := natstest.StartWith(t, 1, natstest.Settings{NoJetStream: true})
	conn, err := connect(t, time.Minute, natsconn.Options{URL: c.URL()})
	if err != nil {
		t.Fatal(err)
	}
	_, err = conn.CheckStream(t.Context(), jetstream.StreamConfig{Name: "iotdm-log"})
	says(t, err, "JetStream", "enable")
}

func TestMessagesThatAreTooSmall(t *testing.T) {
	c := natstest.StartWith(t, 1, natstest.Settings{MaxPayload: 64 << 10})
	_, err := connect(t, time.Minute, natsconn.Options{URL: c.URL()})
	says(t, err, "max_payload")
}

func TestTLS(t *testing.T) {
	cert, key := certificate(t)
	c := natstest.StartWith(t, 1, natstest.Settings{Cert: cert, Key: key})
	if _, err := connect(t, time.Minute, natsconn.Options{URL: c.URL(), CA: cert}); err != nil {
		t.Errorf("with the CA: %v", err)
	}
	_, err := connect(t, time.Minute, natsconn.Options{URL: c.URL()})
	says(t, err, "--cluster-ca")
	other, _ := certificate(t)
	_, err = connect(t, time.Minute, natsconn.Options{URL: c.URL(), CA: other})
	says(t, err, "--cluster-ca")

	plain := natstest.Start(t, 1)
	_, err = connect(t, time.Minute, natsconn.Options{URL: plain.URL(), CA: cert})
	says(t, err, "has no TLS")
}

// certificate makes one for 127.0.0.1 that is its own CA.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: t.Name()},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return write(t, "cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))),
		write(t, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
}
