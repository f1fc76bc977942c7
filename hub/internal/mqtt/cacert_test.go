package mqtt_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/clock"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
)

func pemOf(c tls.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})
}

// addCA registers and verifies a CA.
func addCA(t *testing.T, h *hubtest.Hub, name string, ca tls.Certificate) {
	t.Helper()
	c, err := h.AddCACertificate(name, pemOf(ca))
	if err != nil {
		t.Fatal(err)
	}
	proof := wiretest.Issue(c.VerificationCode, &ca, time.Now().Add(time.Hour))
	if c, err = h.VerifyCACertificate(name, proof.Certificate[0]); err != nil || !c.Verified {
		t.Fatalf("%+v, %v", c, err)
	}
}

// withChain presents certificates between c and the CA.
func withChain(c tls.Certificate, between ...tls.Certificate) *tls.Certificate {
	for _, b := range between {
		c.Certificate = append(c.Certificate, b.Certificate[0])
	}
	return &c
}

func TestCACertificates(t *testing.T) {
	h := hubtest.New(t)
	hour := time.Now().Add(time.Hour)
	ca, unverified, stranger := wiretest.Issue("root", nil, hour), wiretest.Issue("unverified", nil, hour), wiretest.Issue("stranger", nil, hour)
	addCA(t, h, "root", ca)
	if _, err := h.AddCACertificate("unverified", pemOf(unverified)); err != nil {
		t.Fatal(err)
	}
	byCA := hub.IdentitySpec{Auth: hub.Authentication{Type: hub.AuthCertificateAuthority}}
	device, module := hub.ID{Device: "d1"}, hub.ID{Device: "d1", Module: "m1"}
	wiretest.Create(t, h.Node, device, byCA)
	wiretest.Create(t, h.Node, module, byCA)
	h.Device("key")

	between := wiretest.Issue("factory", &ca, hour)
	good := wiretest.Issue("d1", &ca, hour)
	for _, tt := range []struct {
		name        string
		id          hub.ID
		certificate *tls.Certificate
		want        byte
	}{
		{"signed by the CA", device, &good, 0},
		{"signed by a CA in between", device, withChain(wiretest.Issue("d1", &between, hour), between), 0},
		{"a module", module, withChain(wiretest.Issue("d1/m1", &ca, hour)), 0},
		{"a CA in between that is not sent", device, withChain(wiretest.Issue("d1", &between, hour)), 5},
		{"another id", device, withChain(wiretest.Issue("d2", &ca, hour)), 5},
		{"the id in capitals", device, withChain(wiretest.Issue("D1", &ca, hour)), 5},
		{"the device's certificate for its module", module, &good, 5},
		{"expired", device, withChain(wiretest.Issue("d1", &ca, time.Now().Add(-time.Hour))), 5},
		{"a CA that is not verified", device, withChain(wiretest.Issue("d1", &unverified, hour)), 5},
		{"a CA that is not registered", device, withChain(wiretest.Issue("d1", &stranger, hour)), 5},
		{"its own CA sent along", device, withChain(wiretest.Issue("d1", &stranger, hour), stranger), 5},
		{"self-signed", device, withChain(wiretest.Issue("d1", nil, hour)), 5},
		{"a device with keys", hub.ID{Device: "key"}, withChain(wiretest.Issue("key", &ca, hour)), 5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := dialCertificate(t, h, tt.certificate)
			if got := d.Connack(tt.id); got != tt.want {
				t.Errorf("CONNACK %d, want %d", got, tt.want)
			}
		})
	}
	// A common name may hold whatever an id may, in any encoding, and is the id
	// as a whole.
	for _, tt := range []struct {
		id   hub.ID
		name string
		want byte
	}{
		{hub.ID{Device: everyCharacter}, everyCharacter, 0},
		{hub.ID{Device: everyCharacter, Module: everyCharacter}, everyCharacter + "/" + everyCharacter, 0},
		{hub.ID{Device: strings.Repeat("x", 128)}, strings.Repeat("x", 128), 0},
		{hub.ID{Device: "a%2Fb"}, "a%2Fb", 0},
		{hub.ID{Device: "a,CN=b"}, "a,CN=b", 0},
		{hub.ID{Device: "a%2Fb"}, "a/b", 5},
		{hub.ID{Device: "a", Module: "b"}, "a%2Fb", 5},
		{hub.ID{Device: "a", Module: "b"}, "a", 5},
		{hub.ID{Device: "a", Module: "b"}, "b", 5},
		{hub.ID{Device: "a"}, "a/b", 5},
		{hub.ID{Device: "a"}, "a/", 5},
		{hub.ID{Device: "a"}, "a ", 5},
		{hub.ID{Device: "a"}, "a\x00", 5},
		{hub.ID{Device: "a"}, "", 5},
		{hub.ID{Device: "K"}, "\u212a", 5},
	} {
		t.Run(fmt.Sprintf("%s by the common name %q", tt.id, tt.name), func(t *testing.T) {
			for _, id := range []hub.ID{{Device: tt.id.Device}, tt.id} {
				if _, err := h.Identity(id); err != nil {
					wiretest.Create(t, h.Node, id, byCA)
				}
			}
			certificate := wiretest.Issue(tt.name, &ca, hour)
			for where, d := range map[string]*wiretest.Client{"TLS": dialCertificate(t, h, &certificate), "WebSocket": wiretest.DialWebSocket(t, h, certificate)} {
				if got := d.Connack(tt.id); got != tt.want {
					t.Errorf("over %s: CONNACK %d, want %d", where, got, tt.want)
				}
			}
		})
	}
	t.Run("deleting the CA ends the connection", func(t *testing.T) {
		d, bystander := dialCertificate(t, h, &good), wiretest.DialTLS(t, h)
		if got := d.Connack(device); got != 0 {
			t.Fatalf("CONNACK %d, want 0", got)
		}
		bystander.Connect(h.Device("key"))
		if err := h.DeleteCACertificate("root"); err != nil {
			t.Fatal(err)
		}
		d.WantClosed()
		if got := dialCertificate(t, h, &good).Connack(device); got != 5 {
			t.Errorf("CONNACK %d, want 5", got)
		}
		if !h.ConnectionState(hub.ID{Device: "key"}).Connected {
			t.Error("a device with a key lost its connection")
		}
	})
}

func TestCACertificateRefusals(t *testing.T) {
	h := hubtest.New(t)
	hour := time.Now().Add(time.Hour)
	ca := wiretest.Issue("root", nil, hour)
	c, err := h.AddCACertificate("root", pemOf(ca))
	if err != nil {
		t.Fatal(err)
	}
	stranger := wiretest.Issue("stranger", nil, hour)
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("secret")})
	for _, tt := range []struct {
		name string
		do   func() error
		want error
	}{
		{"the same name twice", func() error { _, err := h.AddCACertificate("root", pemOf(ca)); return err }, hub.ErrCACertificateExists},
		{"a bad name", func() error { _, err := h.AddCACertificate("a/b", pemOf(ca)); return err }, hub.ErrArgumentInvalid},
		{"no certificate", func() error { _, err := h.AddCACertificate("x", []byte("hello")); return err }, hub.ErrArgumentInvalid},
		{"a damaged PEM text", func() error { _, err := h.AddCACertificate("x", pemOf(ca)[:100]); return err }, hub.ErrArgumentInvalid},
		{"a private key", func() error { _, err := h.AddCACertificate("x", key); return err }, hub.ErrArgumentInvalid},
		{"a CA whose key is gigantic", func() error {
			signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				return err
			}
			template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: hour, IsCA: true, BasicConstraintsValid: true}
			public := &rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), 100_000, 1), E: 65537}
			der, err := x509.CreateCertificate(rand.Reader, template, template, public, signer)
			if err != nil {
				return err
			}
			_, err = h.AddCACertificate("x", der)
			return err
		}, hub.ErrArgumentInvalid},
		{"an expired CA", func() error {
			_, err := h.AddCACertificate("x", pemOf(wiretest.Issue("old", nil, time.Now().Add(-time.Hour))))
			return err
		}, hub.ErrArgumentInvalid},
		{"proof with another code", func() error {
			_, err := h.VerifyCACertificate("root", pemOf(wiretest.Issue("code", &ca, hour)))
			return err
		}, hub.ErrArgumentInvalid},
		{"proof by another CA", func() error {
			_, err := h.VerifyCACertificate("root", pemOf(wiretest.Issue(c.VerificationCode, &stranger, hour)))
			return err
		}, hub.ErrArgumentInvalid},
		{"proof that has expired", func() error {
			_, err := h.VerifyCACertificate("root", pemOf(wiretest.Issue(c.VerificationCode, &ca, time.Now().Add(-time.Hour))))
			return err
		}, hub.ErrArgumentInvalid},
		{"proof for a CA that is not there", func() error { _, err := h.VerifyCACertificate("x", pemOf(ca)); return err }, hub.ErrCACertificateNotFound},
		{"deleting one that is not there", func() error { return h.DeleteCACertificate("x") }, hub.ErrCACertificateNotFound},
	} {
		if err := tt.do(); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	for i := range 24 {
		if _, err := h.AddCACertificate("ca"+strconv.Itoa(i), pemOf(ca)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.AddCACertificate("one-too-many", pemOf(ca)); !errors.Is(err, hub.ErrQuotaExceeded) {
		t.Errorf("the 26th: %v, want %v", err, hub.ErrQuotaExceeded)
	}
}

func TestCACertificatesOverREST(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{Clock: clock.New()})
	ca := wiretest.Issue("root", nil, time.Now().Add(time.Hour))
	h.Do(wiretest.Call{Method: "GET", Path: "/iotdm/certificates"}).Want(t, 200, `[]`)
	a := h.Do(wiretest.Call{Method: "PUT", Path: "/iotdm/certificates/root", Body: string(pemOf(ca))}).Want(t, 200, "")
	code := a.Text(t, "verificationCode")
	if len(code) != 48 || a.Text(t, "subject") != "CN=root" || !strings.EqualFold(a.Text(t, "thumbprint"), wiretest.Thumbprint(ca)) {
		t.Errorf("PUT answers %s", a.Body)
	}
	proof := wiretest.Issue(code, &ca, time.Now().Add(time.Hour))
	h.Do(wiretest.Call{Method: "POST", Path: "/iotdm/certificates/root/verify", Body: string(pemOf(proof))}).Want(t, 200, "")
	var list []struct {
		Name             string
		IsVerified       bool
		VerificationCode string
	}
	if err := json.Unmarshal([]byte(h.Do(wiretest.Call{Method: "GET", Path: "/iotdm/certificates"}).Body), &list); err != nil {
		t.Fatal(err)
	}
	if len(list) != 1 || list[0].Name != "root" || !list[0].IsVerified || list[0].VerificationCode != "" {
		t.Errorf("list: %+v", list)
	}
	h.Do(wiretest.Call{Method: "DELETE", Path: "/iotdm/certificates/root"}).Want(t, 204, "")
	h.Do(wiretest.Call{Method: "DELETE", Path: "/iotdm/certificates/root"}).WantError(t, 404, "CertificateNotFound", "root")
	h.Do(wiretest.Call{Method: "PUT", Path: "/iotdm/certificates/root", Body: "hello"}).WantError(t, 400, "ArgumentInvalid", "the certificate cannot be read: x509: malformed certificate")
}
