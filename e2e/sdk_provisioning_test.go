package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// The programs here provision devices with the official SDKs, which then work
// with the hub that they were assigned to. Each runs a second time with a service
// that takes its time.

func TestPythonProvisioning(t *testing.T) {
	t.Parallel()
	python := pythonWith(t, "azure.iot.device", "azure.iot.hub")
	provision(t, "127.0.0.71", python, "-u", "sdk/python/provisioning.py")
	provisionLater(t, "127.0.0.72", python, "-u", "sdk/python/provisioning.py", "assigning")
}

func TestNodeProvisioning(t *testing.T) {
	t.Parallel()
	node := nodeWith(t, "azure-iot-provisioning-device-amqp", "azure-iot-provisioning-device-http", "azure-iot-provisioning-device-mqtt",
		"azure-iot-provisioning-service", "azure-iot-security-symmetric-key", "azure-iot-security-x509", "azure-iot-device-mqtt", "azure-iothub")
	provision(t, "127.0.0.73", node, "sdk/node/provisioning.js")
	provisionLater(t, "127.0.0.74", node, "sdk/node/provisioning.js", "assigning")
}

func TestNodeProvisioningService(t *testing.T) {
	t.Parallel()
	node := nodeWith(t, "azure-iot-provisioning-device-mqtt", "azure-iot-provisioning-service", "azure-iot-security-symmetric-key")
	provision(t, "127.0.0.75", node, "sdk/node/provisioning_service.js")
}

func TestJavaProvisioning(t *testing.T) {
	t.Parallel()
	h := startHubOn443(t, "127.0.0.76")
	h.certificates = deviceCertificates(t, h)
	runJava(t, h, [][]string{{"EnrollmentChecks"}, {"ProvisioningChecks", "HTTPS", "MQTT", "MQTT_WS"}, {"ProvisioningChecks", "AMQPS", "AMQPS_WS"}})
	runJava(t, startHubOn443(t, "127.0.0.77", "--assigning", "1s"), [][]string{{"ProvisioningChecks", "assigning"}})
}

// provision runs a program against a hub that knows the certificates of a factory.
func provision(t *testing.T, address, name string, args ...string) {
	t.Helper()
	h := startHubOn443(t, address)
	h.certificates = deviceCertificates(t, h)
	runSDK(t, h, name, args...)
}

// provisionLater runs a program against a hub whose devices have to ask again.
func provisionLater(t *testing.T, address, name string, args ...string) {
	t.Helper()
	runSDK(t, startHubOn443(t, address, "--assigning", "1s"), name, args...)
}

// deviceCertificates makes a folder of certificates and keys of devices, and of
// those who sign them, and has the hub know the factory's:
//
//	self-signed           a device's own
//	factory, line         an authority, and one that it has signed
//	of-line, of-factory   devices, each with the authority between it and the factory
//	stranger              a device of an authority that nobody knows
func deviceCertificates(t *testing.T, h *hubProcess) string {
	t.Helper()
	dir := t.TempDir()
	factory := makeCertificate(t, dir, "factory", true, nil)
	line := makeCertificate(t, dir, "line", true, factory)
	makeCertificate(t, dir, "self-signed", false, nil)
	makeCertificate(t, dir, "of-line", false, line)
	makeCertificate(t, dir, "of-factory", false, makeCertificate(t, dir, "other-line", true, factory))
	makeCertificate(t, dir, "stranger", false, makeCertificate(t, dir, "other-factory", true, nil))
	h.iotdm(t, "hub", "ca-cert", "add", "--name", "factory", "--file", filepath.Join(dir, "factory.pem"))
	h.iotdm(t, "hub", "ca-cert", "verify", "--name", "factory", "--key-file", filepath.Join(dir, "factory.key"))
	return dir
}

// A signer is a certificate with its key, and those above it that devices send.
type signer struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	chain       []byte // PEM
	root        bool
}

// makeCertificate writes NAME.pem, with the authorities in between, and NAME.key.
func makeCertificate(t *testing.T, dir, name string, authority bool, parent *signer) *signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s := &signer{root: parent == nil, key: key, certificate: &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: authority, BasicConstraintsValid: true,
	}}
	by := s
	if parent != nil {
		by = parent
	}
	der, err := x509.CreateCertificate(rand.Reader, s.certificate, by.certificate, key.Public(), by.key)
	if err != nil {
		t.Fatal(err)
	}
	s.chain = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if parent != nil && !parent.root {
		s.chain = append(s.chain, parent.chain...)
	}
	if s.certificate, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for suffix, text := range map[string][]byte{
		".pem": s.chain,
		".key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
	} {
		if err := os.WriteFile(filepath.Join(dir, name+suffix), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return s
}
