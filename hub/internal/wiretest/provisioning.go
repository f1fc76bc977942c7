package wiretest

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"testing"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/hub/provisioning"
	"github.com/iotdm/iotdm/sas"
)

// Enroll puts an enrollment, or replaces it, and returns it with its keys.
func Enroll(t testing.TB, s *node.Node, e provisioning.Enrollment) provisioning.Enrollment {
	t.Helper()
	var m hub.Match
	if _, err := s.Provisioning.Enrollment(e.Kind(), e.ID()); err == nil {
		m.Any = true
	}
	e, err := s.Provisioning.PutEnrollment(e, m)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// EnrollByKey puts an individual enrollment with symmetric keys.
func EnrollByKey(t testing.TB, s *node.Node, id string) provisioning.Enrollment {
	t.Helper()
	return Enroll(t, s, provisioning.Enrollment{RegistrationID: id, Attestation: provisioning.Attestation{Type: provisioning.BySymmetricKey}})
}

// EnrollByCertificate puts an individual enrollment with a client certificate.
func EnrollByCertificate(t testing.TB, s *node.Node, id string, c tls.Certificate) provisioning.Enrollment {
	t.Helper()
	return Enroll(t, s, provisioning.Enrollment{RegistrationID: id, Attestation: provisioning.Attestation{
		Type: provisioning.ByX509, X509: &provisioning.X509{Client: certificates(c)},
	}})
}

// EnrollGroupByCertificate puts an enrollment group of a certificate that signs.
func EnrollGroupByCertificate(t testing.TB, s *node.Node, id string, ca tls.Certificate) provisioning.Enrollment {
	t.Helper()
	return Enroll(t, s, provisioning.Enrollment{GroupID: id, Attestation: provisioning.Attestation{
		Type: provisioning.ByX509, X509: &provisioning.X509{Signing: certificates(ca)},
	}})
}

func certificates(c tls.Certificate) *provisioning.Certificates {
	return &provisioning.Certificates{Primary: &provisioning.Certificate{Text: base64.StdEncoding.EncodeToString(c.Certificate[0])}}
}

// RegistrationToken returns a token for a registration, as SDKs sign it.
func RegistrationToken(t testing.TB, s *node.Node, id string, key sas.Key) string {
	t.Helper()
	return Sign(t, s.IDScope()+"/registrations/"+id, "registration", key, s.Now().Add(time.Hour))
}

// DerivedKey is the key of a device in an enrollment group.
func DerivedKey(t testing.TB, group sas.Key, id string) sas.Key {
	t.Helper()
	secret, err := base64.StdEncoding.DecodeString(string(group))
	if err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(id))
	return sas.Key(base64.StdEncoding.EncodeToString(mac.Sum(nil)))
}
