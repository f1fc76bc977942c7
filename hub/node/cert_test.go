package node

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// handshake connects to a server with certificates c as the client says.
func handshake(t *testing.T, c *certs, client *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	near, far := net.Pipe()
	defer near.Close()
	server := make(chan struct{})
	go func() {
		defer close(server)
		_ = tls.Server(far, c.config).Handshake() // the client tells the same
		far.Close()
	}()
	conn := tls.Client(near, client)
	err := conn.Handshake()
	near.Close()
	<-server
	return conn.ConnectionState(), err
}

func mustOpenCerts(t *testing.T, dir string, names []string, now func() time.Time) *certs {
	t.Helper()
	c, err := openCerts(dir, names, now, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestEachClientGetsTheCertificateItCanUse(t *testing.T) {
	dir := t.TempDir()
	c := mustOpenCerts(t, dir, []string{"hub.example.com", "192.0.2.7", "fe80::1"}, time.Now)
	roots := c.pool()
	for _, tt := range []struct {
		name   string
		client *tls.Config
		rsa    bool
	}{
		{name: "TLS 1.3", client: &tls.Config{ServerName: "localhost"}},
		{name: "TLS 1.2", client: &tls.Config{ServerName: "127.0.0.1", MaxVersion: tls.VersionTLS12}},
		{name: "an IPv6 address", client: &tls.Config{ServerName: "::1"}},
		{name: "a name below localhost", client: &tls.Config{ServerName: "my.localhost"}},
		{name: "a further name", client: &tls.Config{ServerName: "HUB.example.com"}},
		{name: "a further address", client: &tls.Config{ServerName: "192.0.2.7"}},
		{name: "a further IPv6 address", client: &tls.Config{ServerName: "fe80::1"}},
		{name: "TLS 1.2 with ECDSA only", client: &tls.Config{
			ServerName: "localhost", MaxVersion: tls.VersionTLS12,
			CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256},
		}},
		{name: "TLS 1.2 with RSA only", rsa: true, client: &tls.Config{
			ServerName: "localhost", MaxVersion: tls.VersionTLS12,
			CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256},
		}},
		{name: "RSA only again", rsa: true, client: &tls.Config{
			ServerName: "localhost", MaxVersion: tls.VersionTLS12,
			CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := os.Stat(filepath.Join(dir, rsaLeafFile))
			if made := err == nil; made && !tt.rsa {
				t.Error("the RSA key was made before a client needed it")
			}
			tt.client.RootCAs = roots
			state, err := handshake(t, c, tt.client)
			if err != nil {
				t.Fatal(err)
			}
			_, isRSA := state.PeerCertificates[0].PublicKey.(*rsa.PublicKey)
			_, isECDSA := state.PeerCertificates[0].PublicKey.(*ecdsa.PublicKey)
			if isRSA != tt.rsa || isECDSA == tt.rsa {
				t.Errorf("the key is a %T", state.PeerCertificates[0].PublicKey)
			}
		})
	}
	if _, err := handshake(t, c, &tls.Config{ServerName: "other.example.com", RootCAs: roots}); err == nil {
		t.Error("a name that was not given is certified")
	}
	again := mustOpenCerts(t, dir, []string{"hub.example.com", "192.0.2.7", "fe80::1"}, time.Now)
	for _, l := range []func(*certs) *leaf{func(c *certs) *leaf { return &c.ecdsa }, func(c *certs) *leaf { return &c.rsa }} {
		before, err1 := c.leaf(l(c))
		after, err2 := again.leaf(l(again))
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		if !before.Leaf.Equal(after.Leaf) {
			t.Errorf("%s is another one after a restart", l(c).file)
		}
	}
}

func TestLeafIsRenewed(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name    string
		after   time.Duration
		names   []string
		damage  string // a file
		restart bool
		leaf    bool // whether there is another leaf
		ca      bool // and another CA
	}{
		{name: "not while it is young", after: leafLife - leafRenewal - 48*time.Hour},
		{name: "not by a restart while it is young", after: time.Hour, restart: true},
		{name: "before it expires, while running", after: leafLife - leafRenewal, leaf: true},
		{name: "before it expires, at a start", after: leafLife - leafRenewal, restart: true, leaf: true},
		{name: "when the clock was set back", after: -300 * 24 * time.Hour, leaf: true},
		{name: "for new names", names: []string{"new.localhost"}, restart: true, leaf: true},
		{name: "for new names that its CA may not vouch for", names: []string{"new.example.com"}, restart: true, leaf: true, ca: true},
		{name: "when its file is damaged", damage: leafFile, restart: true, leaf: true},
		{name: "with a CA that has become too old", after: caLife - leafLife, restart: true, leaf: true, ca: true},
		{name: "with a CA from the future", after: -10 * 365 * 24 * time.Hour, restart: true, leaf: true, ca: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			now, dir := start, t.TempDir()
			clock := func() time.Time { return now }
			c := mustOpenCerts(t, dir, nil, clock)
			ca, leaf := c.ca.Leaf, mustLeaf(t, c)
			now = now.Add(tt.after)
			if tt.damage != "" {
				if err := os.Truncate(filepath.Join(dir, tt.damage), 100); err != nil {
					t.Fatal(err)
				}
			}
			if tt.restart {
				c = mustOpenCerts(t, dir, tt.names, clock)
			}
			state, err := handshake(t, c, &tls.Config{ServerName: "localhost", RootCAs: c.pool(), Time: clock})
			if err != nil {
				t.Fatal(err)
			}
			if renewed := !state.PeerCertificates[0].Equal(leaf.Leaf); renewed != tt.leaf {
				t.Errorf("another leaf is %v", renewed)
			}
			if renewed := !c.ca.Leaf.Equal(ca); renewed != tt.ca {
				t.Errorf("another CA is %v", renewed)
			}
			stored := mustOpenCerts(t, dir, tt.names, clock)
			if !mustLeaf(t, stored).Leaf.Equal(state.PeerCertificates[0]) {
				t.Error("the leaf in the file is another")
			}
		})
	}
}

func mustLeaf(t *testing.T, c *certs) *tls.Certificate {
	t.Helper()
	leaf, err := c.leaf(&c.ecdsa)
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

func TestDamagedCAIsNamed(t *testing.T) {
	dir := t.TempDir()
	mustOpenCerts(t, dir, nil, time.Now)
	if err := os.Truncate(filepath.Join(dir, caKeyFile), 100); err != nil {
		t.Fatal(err)
	}
	if _, err := openCerts(dir, nil, time.Now, nil); err == nil || !strings.Contains(err.Error(), caKeyFile) {
		t.Errorf("openCerts = %v, want an error that names %s", err, caKeyFile)
	}
}

func TestHostNamesAreChecked(t *testing.T) {
	for _, name := range []string{"", " ", "a b", "a:8883", "https://a", "-a", "a..b", "*.", "a.*.b", "[::1]", "fe80::1%eth0", strings.Repeat("a", 64), "İ", "\u212a", "bücher.example", "a\u3002b", "a\x00b", "a\xff"} {
		if names, err := certNames([]string{name}); err == nil {
			t.Errorf("certNames(%q) = %q, want an error", name, names)
		}
	}
	want := []string{"*.example.com", "*.localhost", "127.0.0.1", "127.0.0.2", "::1", "hub", "iotdm.localhost", "localhost"}
	got, err := certNames([]string{"Hub.", "127.0.0.2", "::ffff:127.0.0.2", "*.example.com", "LOCALHOST"})
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("certNames: %v (-want +got):\n%s", err, diff)
	}
}

// A hub's CA vouches for the hub's names alone. One that may not for a new name
// gives way; one of an older hub may for all and stays, since it is trusted.
func TestACAIsForTheNamesOfTheHub(t *testing.T) {
	dir := t.TempDir()
	open := func(names ...string) *certs { return mustOpenCerts(t, dir, names, time.Now) }
	first := open("hub.example.com", "192.0.2.7")
	for name, want := range map[string]bool{
		"localhost": true, "a.localhost": true, "127.0.0.9": true, "::1": true, "hub.example.com": true, "192.0.2.7": true,
		"example.com": false, "other.example.com": false, "192.0.2.8": false, "::2": false,
	} {
		template := &x509.Certificate{NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = []net.IP{ip}
		} else {
			template.DNSNames = []string{name}
		}
		key, err := newECDSAKey()
		if err != nil {
			t.Fatal(err)
		}
		forged, err := first.sign(template, first.ca.Leaf, key, first.ca.PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		_, err = forged.Leaf.Verify(x509.VerifyOptions{Roots: first.pool(), DNSName: name, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
		if got := err == nil; got != want {
			t.Errorf("a certificate of the CA for %s: %v, want it good: %v", name, err, want)
		}
		if got := permits(first.ca.Leaf, name); got != want {
			t.Errorf("permits(%s) is %v, want %v", name, got, want)
		}
	}
	for _, names := range [][]string{{"hub.example.com", "192.0.2.7"}, {}, {"127.0.0.5"}, {"x.hub.example.com"}} {
		if c := open(names...); !c.ca.Leaf.Equal(first.ca.Leaf) || c.remade != "" {
			t.Errorf("with the names %q there is a new CA: %s", names, c.remade)
		}
	}
	c := open("new.example.com")
	if again := open("hub.example.com", "192.0.2.7"); !again.ca.Leaf.Equal(c.ca.Leaf) {
		t.Error("the new CA may not vouch for what the old one could")
	}
	want := "the hub's CA may not vouch for new.example.com, so there is a new one: whoever has trusted the old one has to trust " + filepath.Join(dir, caFile) + " instead"
	if c.ca.Leaf.Equal(first.ca.Leaf) || c.remade != want {
		t.Errorf("a new name: %q, want %q", c.remade, want)
	}

	// As an older hub made it.
	template := *c.ca.Leaf
	template.PermittedDNSDomains, template.PermittedIPRanges = nil, nil
	old, err := c.sign(&template, &template, c.ca.PrivateKey.(crypto.Signer), c.ca.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.write(caKeyFile, old); err != nil {
		t.Fatal(err)
	}
	if c := open("another.example.com"); !c.ca.Leaf.Equal(old.Leaf) {
		t.Error("a CA without constraints was replaced")
	}
}

func TestAHostNameIsInASCII(t *testing.T) {
	for _, name := range []string{"İ", "\u212a", "bücher.example"} {
		want := fmt.Sprintf(`%q is not in ASCII; give the host name in its punycode form, which begins with "xn--"`, name)
		if _, err := New(Options{HostNames: []string{name}}); err == nil || err.Error() != want {
			t.Errorf("New: %v, want %s", err, want)
		}
	}
}

// What the certificate names is a name of the hub.
func TestHostNamesAreNamesOfTheHub(t *testing.T) {
	n, err := New(Options{HostNames: []string{"Hub.", "*.example.com", "::ffff:192.0.2.7", "FD00::1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	for host, want := range map[string]bool{
		"hub": true, "HUB:8883": true, "hub.": true, "a.example.com": true, "a.example.com:443": true, "192.0.2.7": true, "[::ffff:192.0.2.7]:443": true,
		"[fd00::1]:443": true, "iotdm.localhost.": true,
		"example.com": false, "a.b.example.com": false, ".example.com": false, "hub2": false, "192.0.2.8": false, "": false, ".": false,
	} {
		if got := n.IsName(host); got != want {
			t.Errorf("IsName(%q) is %v, want %v", host, got, want)
		}
	}
}

// A name that is accepted is one that the certificate proves.
func FuzzHostNames(f *testing.F) {
	for _, name := range []string{"hub.example.com", "*.example.com", "a_b", "1.2.3", "192.0.2.1", "::1", "::ffff:1.2.3.4", "x.", "A-1", "xn--bcher-kva.example", "İ", "\u212a"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		c, err := openCerts("", []string{name}, time.Now, nil)
		if err != nil {
			return
		}
		dial := strings.TrimSuffix(strings.Replace(name, "*.", "x.", 1), ".")
		if err := mustLeaf(t, c).Leaf.VerifyHostname(dial); err != nil {
			t.Errorf("%q is accepted: %v", name, err)
		}
	})
}

// Programs other than ours are stricter than crypto/x509.

func TestOpenSSLAcceptsTheCertificatesStrictly(t *testing.T) {
	dir := t.TempDir()
	f, err := openFolder(folderOptions{storage: Folder(dir), now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	if _, err := f.certs.leaf(&f.certs.rsa); err != nil {
		t.Fatal(err)
	}
	openssl := lookPath(t, "openssl")
	for _, leaf := range []string{leafFile, rsaLeafFile} {
		for _, ca := range []string{caFile, bundleFile} {
			for _, name := range []string{"-verify_hostname=localhost", "-verify_hostname=iotdm.localhost", "-verify_ip=127.0.0.1", "-verify_ip=::1"} {
				flag, value, _ := strings.Cut(name, "=")
				cmd := exec.Command(openssl, "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", filepath.Join(dir, ca), flag, value, filepath.Join(dir, leaf))
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("%s: %v\n%s", cmd, err, out)
				}
			}
		}
	}
}

func TestPythonAndNodeTrustTheHubThroughTheirVariables(t *testing.T) {
	dir := t.TempDir()
	f, err := openFolder(folderOptions{storage: Folder(dir), now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	l, err := tls.Listen("tcp", "127.0.0.1:0", f.tlsConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.WriteString(conn, "hello")
				_ = conn.Close()
			}()
		}
	}()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, program, variable, file, script string }{
		{"Python", "python3", "SSL_CERT_FILE", bundleFile, `
import socket, ssl, sys
context = ssl.create_default_context()
context.verify_flags |= ssl.VERIFY_X509_STRICT # the default since Python 3.13
for name in ("localhost", "127.0.0.1", "iotdm.localhost"):
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
        with context.wrap_socket(s, server_hostname=name) as s:
            assert s.recv(5) == b"hello"
print("trusted")
`},
		{"Node", "node", "NODE_EXTRA_CA_CERTS", caFile, `
const tls = require("tls"), port = process.argv[process.argv.length-1]
const next = (names) => {
  if (names.length == 0) return console.log("trusted")
  const s = tls.connect({host: "127.0.0.1", port, servername: names[0] == "127.0.0.1" ? "" : names[0],
    checkServerIdentity: (_, cert) => tls.checkServerIdentity(names[0], cert)})
  s.on("data", () => { if (!s.authorized) throw s.authorizationError; s.end(); next(names.slice(1)) })
}
next(["localhost", "127.0.0.1", "iotdm.localhost"])
`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			program := lookPath(t, tt.program)
			args := map[string][]string{"python3": {"-c", tt.script, port}, "node": {"-e", tt.script, "--", port}}[tt.program]
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, program, args...)
			cmd.Env = append(os.Environ(), tt.variable+"="+filepath.Join(dir, tt.file))
			out, err := cmd.CombinedOutput()
			if err != nil || strings.TrimSpace(string(out)) != "trusted" {
				t.Errorf("%v\n%s", err, out)
			}
			cmd = exec.CommandContext(ctx, program, args...)
			if out, err := cmd.CombinedOutput(); err == nil {
				t.Errorf("trusted without %s:\n%s", tt.variable, out)
			}
		})
	}
}

func lookPath(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil && os.Getenv("IOTDM_REQUIRE_ALL") != "" {
		t.Fatalf("%s is not installed", program)
	}
	if err != nil {
		t.Skipf("%s is not installed", program)
	}
	return path
}

func BenchmarkOpenCertsInMemory(b *testing.B) {
	for b.Loop() {
		if _, err := openCerts("", nil, time.Now, nil); err != nil {
			b.Fatal(err)
		}
	}
}
