package hub_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/clock"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/sas"
)

// signWhatever signs any text as the resource of a token.
func signWhatever(t testing.TB, resource, policy string, key sas.Key, expiry time.Time) (string, bool) {
	t.Helper()
	if strings.ContainsAny(resource, "&\n") || strings.ContainsAny(policy, "&\n") {
		return "", false
	}
	if token, err := sas.Sign(resource, policy, key, expiry); err == nil {
		return token, true
	}
	return "", false
}

// A token of one device's key, whatever it says that it is for, is never another
// device's and never a service's; one of a policy opens what its rights say.
func FuzzTokens(f *testing.F) {
	n := wiretest.NewNode(f, node.Options{Clock: clock.Stopped(wiretest.Now)})
	keys := make(map[string]sas.Key)
	for _, device := range []string{"dev", "dev2", "de"} {
		keys[device] = wiretest.Create(f, n, hub.ID{Device: device}, hub.IdentitySpec{}).Auth.SymmetricKey.Primary
		wiretest.Create(f, n, hub.ID{Device: device, Module: "m"}, hub.IdentitySpec{})
	}
	for _, p := range n.Policies() {
		keys[p.Name] = p.PrimaryKey
	}
	for _, resource := range []string{"localhost", "localhost/devices/dev", "localhost%2Fdevices%2Fdev", "LOCALHOST/DEVICES/DEV", "localhost/devices/dev2", "localhost/devices/",
		"localhost/devices/dev/modules/m", "localhost%252Fdevices%252Fdev", "localhost/dev", "", "/", "localhost/devices/dev%2F..%2Fdev2", "%", "localhost/twins/dev", "localhost/devices/dev/"} {
		f.Add(resource, "", int64(3600), "localhost", "/twins/dev")
		f.Add(resource, "device", int64(3600), "localhost:8883", "/devices/dev")
		f.Add(resource, "service", int64(-1), "LOCALHOST", "/twins/dev2/methods")
	}
	f.Fuzz(func(t *testing.T, resource, policy string, expires int64, host, path string) {
		key, ok := keys[policy]
		owner := policy
		if !ok {
			owner, policy = "dev", ""
			key = keys[owner]
		}
		expiry := n.Now().Add(time.Duration(expires%7200) * time.Second)
		token, ok := signWhatever(t, resource, policy, key, expiry)
		if !ok {
			return
		}
		_, isDevice := map[string]bool{"dev": true, "dev2": true, "de": true}[owner]
		if isDevice {
			policy = ""
			token, _ = signWhatever(t, resource, "", key, expiry)
		}
		mayConnect := owner == "device" || owner == "iothubowner"
		for device := range map[string]bool{"dev": true, "dev2": true, "de": true} {
			for _, id := range []hub.ID{{Device: device}, {Device: device, Module: "m"}} {
				_, err := n.Authenticate(host, id, token, nil)
				if err == nil && device != owner && !mayConnect {
					t.Errorf("the key of %s opens %s at %q by %q", owner, id, host, token)
				}
				if err == nil && expires%7200 < -int64(sas.Skew/time.Second) {
					t.Errorf("%q opens %s, and has expired", token, id)
				}
			}
		}
		if reader, err := n.AuthenticateReader(t.Context(), token, path); err == nil && (isDevice || owner == "device" || !strings.EqualFold(reader.Name, owner)) {
			t.Errorf("the key of %s is taken for the reader %+v by %q", owner, reader, token)
		}
		if examined, err := n.ExamineToken(token); err == nil && examined.Expired(n.Now()) {
			t.Errorf("%q has expired", token)
		}
		caller, err := n.AuthenticateCaller(t.Context(), token, host, path)
		if err == nil && (isDevice || owner == "device") {
			t.Errorf("the key of %s is taken for %+v by %q", owner, caller, token)
		}
		if err == nil && !strings.EqualFold(caller.Name, owner) {
			t.Errorf("%s is taken for %+v", owner, caller)
		}
		if err == nil && !strings.HasPrefix(strings.ToLower(unescaped(resource)), "localhost") && !strings.HasPrefix(unescaped(resource), "127.0.0.1") && !strings.HasPrefix(unescaped(resource), "::1") {
			t.Errorf("%q opens %s for %q", token, path, host)
		}
	})
}

func unescaped(text string) string {
	for {
		plain, err := url.PathUnescape(text)
		if err != nil || plain == text {
			return text
		}
		text = plain
	}
}

// An issuer makes certificates.
type issuer struct {
	t    testing.TB
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newIssuer(t testing.TB, name string) *issuer {
	i := &issuer{t: t}
	var err error
	if i.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	i.cert = &x509.Certificate{Subject: pkix.Name{CommonName: name}}
	i.cert = i.issue(name, true)
	return i
}

func (i *issuer) issue(name string, ca bool) *x509.Certificate {
	i.t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: ca, BasicConstraintsValid: true,
		NotBefore: wiretest.Now.Add(-time.Hour), NotAfter: wiretest.Now.Add(time.Hour),
	}
	if ca {
		template.KeyUsage = x509.KeyUsageCertSign
	}
	parent := i.cert
	if ca {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &i.key.PublicKey, i.key)
	if err != nil {
		i.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		i.t.Fatal(err)
	}
	return cert
}

func pemOf(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// What is uploaded as a certificate of an authority is kept as it was and
// counts for nothing until its key is proved, or it is refused and not there.
// A proof is one that the authority has signed. A device that shows whatever
// chain is who it says only by a certificate that was made for it.
func FuzzCertificates(f *testing.F) {
	n := wiretest.NewNode(f, node.Options{Clock: clock.Stopped(wiretest.Now)})
	ca, stranger := newIssuer(f, "ca"), newIssuer(f, "stranger")
	registered, err := n.AddCACertificate("ca", pemOf(ca.cert))
	if err != nil {
		f.Fatal(err)
	}
	if _, err := n.VerifyCACertificate("ca", pemOf(ca.issue(registered.VerificationCode, false))); err != nil {
		f.Fatal(err)
	}
	own := stranger.issue("whatever", false)
	sum := sha256.Sum256(own.Raw)
	thumbprint := hex.EncodeToString(sum[:])
	wiretest.Create(f, n, hub.ID{Device: "self"}, hub.IdentitySpec{Auth: hub.Authentication{Type: hub.AuthSelfSigned, X509: hub.X509Thumbprint{Primary: &thumbprint}}})
	wiretest.Create(f, n, hub.ID{Device: "issued"}, hub.IdentitySpec{Auth: hub.Authentication{Type: hub.AuthCertificateAuthority}})
	wiretest.Create(f, n, hub.ID{Device: "keys"}, hub.IdentitySpec{})
	issued := ca.issue("issued", false)
	for _, c := range []*x509.Certificate{ca.cert, stranger.cert, own, issued, ca.issue("keys", false), stranger.issue("issued", false)} {
		f.Add(c.Raw)
		f.Add(pemOf(c))
	}
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"))
	f.Add(append(append([]byte(nil), issued.Raw...), ca.cert.Raw...))
	list := func(t testing.TB) []hub.CACertificate {
		t.Helper()
		all, err := n.CACertificates()
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		before := list(t)
		added, err := n.AddCACertificate("new", data)
		if err != nil {
			if diff := cmp.Diff(before, list(t)); diff != "" {
				t.Errorf("%v (-before +after):\n%s", err, diff)
			}
		} else {
			cert, err := added.Certificate()
			if err != nil || !cert.IsCA || added.Verified || added.VerificationCode == "" {
				t.Errorf("%x is taken as %+v, %v", data, added, err)
			}
			if diff := cmp.Diff(added, list(t)[1]); diff != "" {
				t.Errorf("the certificate that is read (-added +read):\n%s", diff)
			}
			if c, err := n.VerifyCACertificate("new", data); err == nil {
				t.Errorf("it proves itself: %+v", c)
			}
			if err := n.DeleteCACertificate("new"); err != nil {
				t.Fatal(err)
			}
		}
		chain, err := x509.ParseCertificates(data)
		if err != nil || len(chain) == 0 {
			return
		}
		made := map[string]*x509.Certificate{"self": own, "issued": issued}
		for _, device := range []string{"self", "issued", "keys"} {
			_, err := n.Authenticate("localhost", hub.ID{Device: device}, "", chain)
			if c := made[device]; err == nil && (c == nil || string(c.RawTBSCertificate) != string(chain[0].RawTBSCertificate)) {
				t.Errorf("%s is let in by %x", device, data)
			}
		}
	})
}
