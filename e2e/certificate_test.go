package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"os"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// writeCertificate is the script command
//
//	certificate NAME COMMON-NAME [CA]
//
// It makes a certificate, signed by itself or by an earlier one, in NAME.pem
// and NAME.key, and sets $thumbprint to its SHA-1. The common name may be
// @FILE.
func writeCertificate(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 || len(args) > 3 {
		ts.Fatalf("usage: certificate NAME COMMON-NAME [CA]")
	}
	name := args[1]
	if file, ok := strings.CutPrefix(name, "@"); ok {
		name = strings.TrimSpace(ts.ReadFile(file))
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(time.Now().UnixNano()),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		IsCA:                  len(args) == 2,
		BasicConstraintsValid: true,
	}
	parent, signer := template, any(key)
	if len(args) == 3 {
		ca, err := tls.LoadX509KeyPair(ts.MkAbs(args[2]+".pem"), ts.MkAbs(args[2]+".key"))
		ts.Check(err)
		parent, signer = ca.Leaf, ca.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	ts.Check(err)
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	ts.Check(err)
	for _, f := range []struct {
		suffix, kind string
		content      []byte
	}{{".pem", "CERTIFICATE", der}, {".key", "PRIVATE KEY", secret}} {
		text := pem.EncodeToMemory(&pem.Block{Type: f.kind, Bytes: f.content})
		ts.Check(os.WriteFile(ts.MkAbs(args[0]+f.suffix), text, 0o600))
	}
	sum := sha1.Sum(der)
	ts.Setenv("thumbprint", hex.EncodeToString(sum[:]))
}
