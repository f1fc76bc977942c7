package provisioning_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/hub/provisioning"
	"github.com/iotdm/iotdm/sas"
)

const scope = "0ne00ABCDEF"

// A bench is a hub with its provisioning service, of which nothing listens.
type bench struct {
	*provisioning.Service
	t   testing.TB
	hub *node.Node
}

func newBench(t testing.TB, opt node.Options) bench {
	t.Helper()
	opt.IDScope = scope
	n := wiretest.NewNode(t, opt)
	return bench{n.Provisioning, t, n}
}

// put creates an enrollment.
func (b bench) put(e provisioning.Enrollment) provisioning.Enrollment {
	b.t.Helper()
	e, err := b.PutEnrollment(e, hub.Match{})
	if err != nil {
		b.t.Fatalf("put %s: %v", e.ID(), err)
	}
	return e
}

// change replaces an enrollment by what fn makes of it.
func (b bench) change(k provisioning.Kind, id string, fn func(*provisioning.Enrollment)) {
	b.t.Helper()
	e, err := b.Enrollment(k, id)
	if err == nil {
		fn(&e)
		_, err = b.PutEnrollment(e, hub.Match{ETag: e.ETag})
	}
	if err != nil {
		b.t.Fatalf("change %s: %v", id, err)
	}
}

// register registers a device, which must come out with the status.
func (b bench) register(p provisioning.Peer, want provisioning.Status) provisioning.Registration {
	b.t.Helper()
	op, err := b.Register(b.t.Context(), p, provisioning.Request{})
	switch {
	case err != nil:
		b.t.Fatalf("register %s: %v", p.ID, err)
	case op.Status != want || op.Registration == nil || op.Registration.Status != want:
		b.t.Fatalf("register %s: %s, want %s: %+v", p.ID, op.Status, want, op.Registration)
	}
	return *op.Registration
}

// refused returns what a device is refused with.
func (b bench) refused(p provisioning.Peer) *provisioning.Error {
	b.t.Helper()
	_, err := b.Register(b.t.Context(), p, provisioning.Request{})
	var refused *provisioning.Error
	if !errors.As(err, &refused) {
		b.t.Fatalf("register %s: %v, want a refusal", p.ID, err)
	}
	if _, again := b.Authenticate(p); again == nil || again.Error() != err.Error() {
		b.t.Errorf("authenticate %s: %v, but register: %v", p.ID, again, err)
	}
	return refused
}

func (b bench) identity(device string) hub.Identity {
	b.t.Helper()
	i, err := b.hub.Identity(hub.ID{Device: device})
	if err != nil {
		b.t.Fatalf("identity: %v", err)
	}
	return i
}

// twin returns the twin of a device as it was given: tags, desired, reported.
func (b bench) twin(device string) string {
	b.t.Helper()
	v, err := b.hub.Twin(hub.ID{Device: device})
	if err != nil {
		b.t.Fatalf("twin: %v", err)
	}
	tags, desired, reported := v.Contents()
	return string(tags) + " " + string(desired) + " " + string(reported)
}

// bySAS is a device that signs with a key.
func bySAS(t testing.TB, id string, key sas.Key) provisioning.Peer {
	t.Helper()
	token, err := sas.Sign(scope+"/registrations/"+id, "registration", key, time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return provisioning.Peer{Scope: scope, ID: id, Password: token, Host: "localhost", Remote: "192.0.2.1:1"}
}

// byCert is a device that shows certificates, its own first.
func byCert(id string, chain ...tls.Certificate) provisioning.Peer {
	p := provisioning.Peer{Scope: scope, ID: id, Host: "localhost", Remote: "192.0.2.1:1"}
	for _, c := range chain {
		p.Chain = append(p.Chain, c.Leaf)
	}
	return p
}

// derived is the key of a device in a group, by the words of "Symmetric key
// attestation".
func derived(t testing.TB, group sas.Key, id string) sas.Key {
	t.Helper()
	secret, err := base64.StdEncoding.DecodeString(string(group))
	if err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(id))
	return sas.Key(base64.StdEncoding.EncodeToString(mac.Sum(nil)))
}

func byKey(id string) provisioning.Enrollment {
	return provisioning.Enrollment{RegistrationID: id, Attestation: provisioning.Attestation{Type: provisioning.BySymmetricKey}}
}

func groupByKey(id string) provisioning.Enrollment {
	return provisioning.Enrollment{GroupID: id, Attestation: provisioning.Attestation{Type: provisioning.BySymmetricKey}}
}

func pemOf(c tls.Certificate) *provisioning.Certificate {
	return &provisioning.Certificate{Text: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Leaf.Raw}))}
}

func groupByCert(id string, signing ...tls.Certificate) provisioning.Enrollment {
	list := &provisioning.Certificates{Primary: pemOf(signing[0])}
	if len(signing) > 1 {
		list.Secondary = pemOf(signing[1])
	}
	return provisioning.Enrollment{GroupID: id, Attestation: provisioning.Attestation{Type: provisioning.ByX509, X509: &provisioning.X509{Signing: list}}}
}

func clientCert(id string, client ...tls.Certificate) provisioning.Enrollment {
	e := groupByCert("x", client...)
	e.GroupID, e.RegistrationID = "", id
	e.Attestation.X509.Client, e.Attestation.X509.Signing = e.Attestation.X509.Signing, nil
	return e
}

func twinOf(t testing.TB, text string) *provisioning.Twin {
	t.Helper()
	twin := new(provisioning.Twin)
	if err := json.Unmarshal([]byte(text), twin); err != nil {
		t.Fatal(err)
	}
	return twin
}

// issue makes a certificate that is valid now.
func issue(name string, ca *tls.Certificate) tls.Certificate {
	return wiretest.Issue(name, ca, time.Now().Add(2*time.Hour))
}

// addCA gives the hub a CA whose owner has proved it.
func (b bench) addCA(name string, ca tls.Certificate) {
	b.t.Helper()
	c, err := b.hub.AddCACertificate(name, ca.Leaf.Raw)
	if err == nil {
		_, err = b.hub.VerifyCACertificate(name, issue(c.VerificationCode, &ca).Leaf.Raw)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

func thumb(c *x509.Certificate) string {
	return wiretest.Thumbprint(tls.Certificate{Certificate: [][]byte{c.Raw}})
}

func wantCode(t testing.TB, what string, got *provisioning.Error, code int, log string) {
	t.Helper()
	if got.Code != code || !strings.Contains(got.Error(), log) {
		t.Errorf("%s: %d %q, want %d and %q", what, got.Code, got.Error(), code, log)
	}
	if log != "" && strings.Contains(got.Text, log) {
		t.Errorf("%s: the device is told %q", what, got.Text)
	}
}
