package mqttdevice_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"math/big"
	"testing"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/hub/provisioning"
	"github.com/iotdm/iotdm/mqttdevice"
	"github.com/iotdm/iotdm/sas"
)

// enroll puts an enrollment and returns it with its keys.
func enroll(t *testing.T, h *hubtest.Hub, e provisioning.Enrollment) provisioning.Enrollment {
	t.Helper()
	if e.Attestation.Type == "" {
		e.Attestation = provisioning.Attestation{Type: provisioning.BySymmetricKey}
	}
	e, err := h.Provisioning.PutEnrollment(e, hub.Match{})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// registerOptions say how to register with h.
func registerOptions(h *hubtest.Hub, id string, key sas.Key) mqttdevice.RegistrationOptions {
	return mqttdevice.RegistrationOptions{
		Host: h.HostName, IDScope: h.IDScope(), RegistrationID: id, Key: key, Addr: h.MQTTSAddr, WebSocketAddr: h.HTTPSAddr, TLS: h.ClientTLS(),
	}
}

// issue makes a certificate that is signed by another, or by itself.
func issue(t *testing.T, name string, by *tls.Certificate, end time.Time) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: end.Add(-2 * time.Hour), NotAfter: end, IsCA: by == nil, BasicConstraintsValid: true,
	}
	parent, signer := template, key
	if by != nil {
		parent, signer = by.Leaf, by.PrivateKey.(*ecdsa.PrivateKey)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	chain := [][]byte{der}
	if by != nil {
		chain = append(chain, by.Certificate...)
	}
	return &tls.Certificate{Certificate: chain, PrivateKey: key, Leaf: leaf}
}

func certificateOf(c *tls.Certificate) *provisioning.Certificates {
	return &provisioning.Certificates{Primary: &provisioning.Certificate{Text: base64.StdEncoding.EncodeToString(c.Certificate[0])}}
}

// connectAssigned connects to where a device was assigned.
func connectAssigned(t *testing.T, h *hubtest.Hub, a mqttdevice.Assignment, opt mqttdevice.RegistrationOptions) error {
	t.Helper()
	c, err := mqttdevice.New(mqttdevice.Options{
		ConnectionString: a.ConnectionString(opt.Key), Transport: opt.Transport, Addr: opt.Addr, WebSocketAddr: opt.WebSocketAddr, TLS: opt.TLS,
	})
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Connect(t.Context())
}

func TestRegisterWithARealHub(t *testing.T) {
	h := hubtest.New(t)
	end := time.Now().Add(time.Hour)
	single := enroll(t, h, provisioning.Enrollment{RegistrationID: "single", DeviceID: "pump-1"})
	group := enroll(t, h, provisioning.Enrollment{GroupID: "group"})
	derived, err := sas.DeriveKey(group.Attestation.SymmetricKey.Secondary, "Member-7")
	if err != nil {
		t.Fatal(err)
	}
	own, root := issue(t, "own", nil, end), issue(t, "root", nil, end)
	enroll(t, h, provisioning.Enrollment{RegistrationID: "own", Attestation: provisioning.Attestation{Type: provisioning.ByX509, X509: &provisioning.X509{Client: certificateOf(own)}}})
	enroll(t, h, provisioning.Enrollment{GroupID: "signed", Attestation: provisioning.Attestation{Type: provisioning.ByX509, X509: &provisioning.X509{Signing: certificateOf(root)}}})
	for _, tt := range []struct {
		id, device string
		key        sas.Key
		with       *tls.Certificate
	}{
		{"single", "pump-1", single.Attestation.SymmetricKey.Primary, nil},
		{"Member-7", "Member-7", derived, nil},
		{"own", "own", "", own},
		{"leaf", "leaf", "", issue(t, "leaf", root, end)},
	} {
		for _, transport := range []mqttdevice.Transport{mqttdevice.TCP, mqttdevice.WebSocket, mqttdevice.Auto} {
			opt := registerOptions(h, tt.id, tt.key)
			opt.Transport = transport
			if transport == mqttdevice.WebSocket {
				opt.Addr = h.HTTPSAddr
			}
			if tt.with != nil {
				opt.TLS.Certificates = []tls.Certificate{*tt.with}
			}
			a, err := mqttdevice.Register(t.Context(), opt)
			if err != nil || a.DeviceID != tt.device || a.Hub == "" {
				t.Errorf("%s over %v: %+v, error %v", tt.id, transport, a, err)
				continue
			}
			if err := connectAssigned(t, h, a, opt); err != nil {
				t.Errorf("%s over %v, then: %v", tt.id, transport, err)
			}
		}
	}
}

func TestRefusalsOfARealHub(t *testing.T) {
	h := hubtest.New(t)
	end := time.Now().Add(time.Hour)
	one := enroll(t, h, provisioning.Enrollment{RegistrationID: "one"}).Attestation.SymmetricKey.Primary
	two := enroll(t, h, provisioning.Enrollment{RegistrationID: "two"}).Attestation.SymmetricKey.Primary
	off := enroll(t, h, provisioning.Enrollment{RegistrationID: "off", Status: hub.StatusDisabled}).Attestation.SymmetricKey.Primary
	elsewhere := enroll(t, h, provisioning.Enrollment{RegistrationID: "elsewhere", Allocation: provisioning.Static, Hubs: []string{"other.example.com"}}).Attestation.SymmetricKey.Primary
	mine, late := issue(t, "cert", nil, end), issue(t, "late", nil, time.Now().Add(-time.Minute))
	for _, c := range []*tls.Certificate{mine, late} {
		enroll(t, h, provisioning.Enrollment{RegistrationID: c.Leaf.Subject.CommonName, Attestation: provisioning.Attestation{Type: provisioning.ByX509, X509: &provisioning.X509{Client: certificateOf(c)}}})
	}
	for _, tt := range []struct {
		name, id string
		key      sas.Key
		with     *tls.Certificate
		scope    string
		want     []error // one of them
	}{
		{"another's key", "one", two, nil, "", []error{mqttdevice.ErrUnauthorized}},
		{"unknown", "nobody", one, nil, "", []error{mqttdevice.ErrUnauthorized, mqttdevice.ErrNotEnrolled}},
		{"unknown scope", "one", one, nil, "0neFFFFFFFF", []error{mqttdevice.ErrUnauthorized, mqttdevice.ErrNotEnrolled}},
		{"disabled", "off", off, nil, "", []error{mqttdevice.ErrEnrollmentDisabled}},
		{"a hub that is not linked", "elsewhere", elsewhere, nil, "", []error{mqttdevice.ErrNotAssigned}},
		{"a foreign certificate", "cert", "", issue(t, "cert", nil, end), "", []error{mqttdevice.ErrUnauthorized, mqttdevice.ErrNotEnrolled}},
		{"another common name", "one", "", mine, "", []error{mqttdevice.ErrUnauthorized, mqttdevice.ErrNotEnrolled}},
		{"an expired certificate", "late", "", late, "", []error{mqttdevice.ErrCertificateExpired}},
	} {
		opt := registerOptions(h, tt.id, tt.key)
		if tt.scope != "" {
			opt.IDScope = tt.scope
		}
		if tt.with != nil {
			opt.TLS.Certificates = []tls.Certificate{*tt.with}
		}
		a, err := mqttdevice.Register(t.Context(), opt)
		ok := false
		for _, want := range tt.want {
			ok = ok || errors.Is(err, want)
		}
		if !ok {
			t.Errorf("%s: %+v, error %v, want one of %v", tt.name, a, err, tt.want)
		}
	}
}

func TestAHubThatIsAssigning(t *testing.T) {
	h := hubtest.New(t, hubtest.WithOptions(node.Options{Assigning: 1500 * time.Millisecond}))
	key := enroll(t, h, provisioning.Enrollment{RegistrationID: "one"}).Attestation.SymmetricKey.Primary
	began := time.Now()
	a, err := mqttdevice.Register(t.Context(), registerOptions(h, "one", key))
	if took := time.Since(began); err != nil || a.DeviceID != "one" || took < 1500*time.Millisecond {
		t.Errorf("after %v: %+v, error %v", took, a, err)
	}
}
