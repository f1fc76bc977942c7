//go:build unix

package node_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
)

// Topics of methods where a broker stands in for the hub.
const brokerAnswers = "answers/"

func brokerMethods(device string) string { return "devices/" + device + "/" }

// BenchmarkMethodsBesideMosquitto has 64 callers call direct methods of 1,000
// devices over TLS, and then as many times send a message to a device and wait
// for one by way of mosquitto, at QoS 0 and with the same bytes. There the
// callers share a connection without TLS, as a service does that asks a broker.
func BenchmarkMethodsBesideMosquitto(b *testing.B) {
	program, err := exec.LookPath("mosquitto")
	if err != nil {
		b.Skip("mosquitto is not installed")
	}
	const devices, callers = 1000, 64
	h := hubtest.New(b)
	startFleet(b, h, devices, true)
	broker := startMosquitto(b, program, h, devices)
	call := hub.MethodCall{Name: "echo", Payload: []byte(`{"delay":5}`), ResponseTimeout: hub.DefaultResponseTimeout}
	b.ResetTimer()
	ours := callMethods(b, callers, devices, func(_ int, id hub.ID) error {
		_, err := h.InvokeMethod(context.Background(), id, call)
		return err
	})
	theirs := callMethods(b, callers, devices, broker.call)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ours, "methods/s")
	b.ReportMetric(theirs, "mosquitto-methods/s")
	b.ReportMetric(ours/theirs, "x-mosquitto")
}

// A brokerCaller is the connection of those who call methods through a broker.
type brokerCaller struct {
	echoDevice
	mu      sync.Mutex // of out
	out     *bufio.Writer
	waiting [64]chan struct{} // by number of the caller
}

// startMosquitto starts a broker, connects the devices, and returns a connection
// for the callers.
func startMosquitto(b *testing.B, program string, h *hubtest.Hub, devices int) *brokerCaller {
	dir := b.TempDir()
	certificate, err := h.TLSConfig().GetCertificate(&tls.ClientHelloInfo{ServerName: "localhost"})
	if err != nil {
		b.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(certificate.PrivateKey)
	if err != nil {
		b.Fatal(err)
	}
	var chain bytes.Buffer
	for _, der := range certificate.Certificate {
		pem.Encode(&chain, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	tlsAddr, plainAddr := freeAddr(b), freeAddr(b)
	files := map[string][]byte{
		"cert.pem": chain.Bytes(),
		"key.pem":  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
		"mosquitto.conf": fmt.Appendf(nil, "per_listener_settings false\nallow_anonymous true\npersistence false\nlog_dest none\nset_tcp_nodelay true\n"+
			"listener %s\nlistener %s\ncertfile cert.pem\nkeyfile key.pem\n", portFirst(plainAddr), portFirst(tlsAddr)),
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			b.Fatal(err)
		}
	}
	cmd := exec.Command(program, "-c", "mosquitto.conf")
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	var nc net.Conn
	for began := time.Now(); ; {
		if nc, err = net.Dial("tcp", plainAddr); err == nil {
			break
		}
		if time.Since(began) > 10*time.Second {
			b.Fatal(err)
		}
	}
	b.Cleanup(func() { nc.Close() })
	c := &brokerCaller{echoDevice: echoDevice{nc: nc, r: bufio.NewReader(nc)}, out: bufio.NewWriter(nc)}
	if err := c.connect("callers", "", brokerAnswers+"#"); err != nil {
		b.Fatal(err)
	}
	for i := range c.waiting {
		c.waiting[i] = make(chan struct{}, 1)
	}
	go c.receive()
	runFleet(b, fleet{Addr: tlsAddr, CA: h.CACertificate(), Key: h.Policy("device").SharedAccessKey, Count: devices, Broker: true})
	return c
}

func freeAddr(b *testing.B) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// portFirst writes an address as mosquitto wants it.
func portFirst(addr string) string {
	host, port, _ := strings.Cut(addr, ":")
	return port + " " + host
}

func (c *brokerCaller) call(caller int, id hub.ID) error {
	packet := appendPublish(nil, brokerMethods(id.Device)+"echo/"+strconv.Itoa(caller), []byte(`{"delay":5}`))
	c.mu.Lock()
	_, err := c.out.Write(packet)
	if err == nil {
		err = c.out.Flush()
	}
	c.mu.Unlock()
	if err != nil {
		return err
	}
	<-c.waiting[caller]
	return nil
}

// receive tells callers of their answers until the connection ends.
func (c *brokerCaller) receive() {
	for {
		_, body, err := c.read()
		if err != nil {
			return
		}
		topic, _, _ := strings.Cut(string(body[2:]), "{")
		if caller, err := strconv.Atoi(strings.TrimPrefix(topic, brokerAnswers)); err == nil {
			c.waiting[caller] <- struct{}{}
		}
	}
}
