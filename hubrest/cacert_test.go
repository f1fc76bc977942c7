package hubrest_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hubrest"
)

func TestCACertificatesOfARealHub(t *testing.T) {
	ctx := t.Context()
	c := newHubClient(t, hubtest.New(t), "registryReadWrite")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	certificate := func(name string, ca bool) []byte {
		template := &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			IsCA: ca, BasicConstraintsValid: true,
		}
		parent := *template
		parent.Subject.CommonName, parent.IsCA = "factory", true
		der, err := x509.CreateCertificate(rand.Reader, template, &parent, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	der := certificate("factory", true)
	added, err := c.AddCACertificate(ctx, "ca.1", der)
	if err != nil {
		t.Fatal(err)
	}
	if added.Name != "ca.1" || added.Subject != "CN=factory" || added.IsVerified || added.VerificationCode == "" || added.Expiry.IsZero() {
		t.Errorf("added %+v", added)
	}
	if diff := cmp.Diff(der, added.Certificate); diff != "" {
		t.Errorf("certificate (-want +got):\n%s", diff)
	}
	var refused *hubrest.Error
	if _, err := c.VerifyCACertificate(ctx, "ca.1", certificate("wrong", false)); !errors.As(err, &refused) || refused.Status != 400 {
		t.Errorf("a wrong proof: %v, want a refusal", err)
	}
	verified, err := c.VerifyCACertificate(ctx, "ca.1", certificate(added.VerificationCode, false))
	if err != nil || !verified.IsVerified || verified.VerificationCode != "" {
		t.Errorf("verified %+v, %v", verified, err)
	}
	list, err := c.CACertificates(ctx)
	if diff := cmp.Diff([]hubrest.CACertificate{verified}, list); diff != "" || err != nil {
		t.Errorf("CACertificates: %v (-want +got):\n%s", err, diff)
	}
	if err := c.DeleteCACertificate(ctx, "ca.1"); err != nil {
		t.Error(err)
	}
	if err := c.DeleteCACertificate(ctx, "ca.1"); !errors.Is(err, hubrest.ErrNotFound) {
		t.Errorf("DeleteCACertificate again: %v, want ErrNotFound", err)
	}
}
