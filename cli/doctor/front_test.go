package doctor_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// An authority signs certificates for tests.
type authority struct {
	t    *testing.T
	cert tls.Certificate
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{t: t}
	a.cert = a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().AddDate(-5, 0, 0), NotAfter: time.Now().AddDate(20, 0, 0),
	})
	return a
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert.Leaf)
	return pool
}

// leaf returns a certificate for the name, valid until then.
func (a *authority) leaf(name string, until time.Time) tls.Certificate {
	return a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: until.AddDate(-1, 0, 0), NotAfter: until,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
}

func (a *authority) sign(template *x509.Certificate) tls.Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	parent, signer := template, any(key)
	if a.cert.Leaf != nil {
		parent, signer = a.cert.Leaf, a.cert.PrivateKey
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: cert}
}

// serve gives every connection to handle, until the test ends, and returns the
// address.
func serve(t *testing.T, handle func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[conn] = true
			mu.Unlock()
			wg.Go(func() {
				defer conn.Close()
				handle(conn)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for conn := range open {
			conn.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr().String()
}

// splice connects two connections until one of them ends.
func splice(a, b net.Conn) {
	var wg sync.WaitGroup
	wg.Go(func() { io.Copy(a, b); a.Close() })
	io.Copy(b, a)
	b.Close()
	wg.Wait()
}

// front returns the address of a TLS server with that certificate, in front of
// the hub that listens on behind.
func front(t *testing.T, cert tls.Certificate, behind string) string {
	return serve(t, func(conn net.Conn) {
		open(tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{cert}}), behind)
	})
}

// open ends the client's TLS and begins its own to the hub.
func open(client net.Conn, behind string) {
	far, err := tls.Dial("tcp", behind, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		return
	}
	defer far.Close()
	splice(client, far)
}

// A proxy answers CONNECT to the ports it is told to let through.
type proxy struct {
	ports []string
	hosts map[string]string // by port, where a connection ends up
	ca    *authority        // whose certificates it shows instead of the hub's; nil: it passes TLS through
}

func (p *proxy) start(t *testing.T) string {
	return serve(t, func(conn net.Conn) {
		r, err := http.ReadRequest(bufio.NewReader(conn))
		if err != nil {
			return
		}
		host, port, _ := strings.Cut(r.Host, ":")
		if r.Method != http.MethodConnect || !slices.Contains(p.ports, port) {
			io.WriteString(conn, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
			return
		}
		io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
		if p.ca != nil {
			leaf := p.ca.leaf(host, time.Now().AddDate(0, 6, 0))
			open(tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{leaf}}), p.hosts[port])
			return
		}
		if far, err := net.Dial("tcp", p.hosts[port]); err == nil {
			splice(conn, far)
		}
	})
}

// closedPort returns an address where nothing listens.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
