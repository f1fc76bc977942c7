package doctor

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/iotdm/iotdm/cli/internal/localhub"
	"github.com/iotdm/iotdm/mqttdevice"
)

// A door is one of the ports of a hub, and what was seen there.
type door struct {
	port, tls string   // names of its checks
	what      string   // for people
	host      string   // the name that the certificate must bear
	addr      string   // host:port to dial
	proxy     *url.URL // through which; nil: none
	needed    bool     // the credential cannot do without it

	tcpErr error
	took   time.Duration
	tlsErr error               // of the handshake, whose certificates were not verified
	chain  []*x509.Certificate // what the peer presented

	webSocketErr error
}

// doors returns the hub's ports, not visited yet.
func (x *examination) doors() (mqtt, https, amqp door) {
	c := x.Connection
	host, port := localhub.SplitPort(cmp.Or(c.GatewayHostName, c.HostName))
	host = strings.Trim(host, "[]")
	mqttPort, httpsPort := "8883", "443"
	switch {
	case port == "":
	case x.isDevice() && !x.WebSocket:
		mqttPort = port
	default:
		httpsPort = port
	}
	mqtt = door{port: CheckMQTTPort, tls: CheckMQTTTLS, what: "MQTT", host: host, needed: x.isDevice() && !x.WebSocket,
		addr: cmp.Or(x.MQTTSAddr, net.JoinHostPort(host, mqttPort))}
	https = door{port: CheckHTTPSPort, tls: CheckHTTPSTLS, what: "HTTPS", host: host, needed: !x.isDevice() || x.WebSocket,
		addr: cmp.Or(x.HTTPSAddr, net.JoinHostPort(host, httpsPort))}
	amqp = door{port: CheckAMQPPort, tls: CheckAMQPTLS, what: "AMQP", host: host, addr: cmp.Or(x.AMQPSAddr, net.JoinHostPort(host, localhub.AMQPSPort))}
	return mqtt, https, amqp
}

// urlHost is the host as a URL has it.
func (d *door) urlHost() string {
	if strings.Contains(d.host, ":") {
		return "[" + d.host + "]"
	}
	return d.host
}

// unneeded turns the failure of a door that the credential can do without into
// a warning.
func (d *door) unneeded(c Check) Check {
	if c.Verdict == Failed && !d.needed {
		c.Verdict = Warning
		c.TimedOut = false
		c.Detail += " (only " + map[string]string{"MQTT": "MQTT without WebSocket needs it)", "AMQP": "AMQP without WebSocket needs it)", "HTTPS": "service commands and MQTT over WebSocket need it)"}[d.what]
	}
	return c
}

// dial connects to the door, through the proxy if there is one.
func (d *door) dial(ctx context.Context, roots *x509.CertPool) (net.Conn, error) {
	if d.proxy != nil {
		return mqttdevice.DialProxy(ctx, d.proxy, d.addr, roots)
	}
	return new(net.Dialer).DialContext(ctx, "tcp", d.addr)
}

// dialTLS connects to the door and verifies its certificate.
func (x *examination) dialTLS(ctx context.Context, d *door) (*tls.Conn, error) {
	config := &tls.Config{ServerName: d.host, RootCAs: x.Roots, MinVersion: tls.VersionTLS12}
	if x.Certificate != nil {
		config.Certificates = []tls.Certificate{*x.Certificate}
		config.Renegotiation = tls.RenegotiateOnceAsClient // Azure may ask for it then
	}
	return x.shake(ctx, d, config)
}

func (x *examination) shake(ctx context.Context, d *door, config *tls.Config) (*tls.Conn, error) {
	conn, err := d.dial(ctx, x.Roots)
	if err != nil {
		return nil, err
	}
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return secure, nil
}

// usesAMQPS reports whether the credential may want AMQP over TLS, and the hub
// have it.
func (x *examination) usesAMQPS() bool { return !x.isDevice() && !x.NoAMQPS }

// visit goes to the doors and remembers what it sees. It judges nothing, and
// sends no credential.
func (x *examination) visit(ctx context.Context) {
	if x.proxyErr != nil {
		x.mqtt.tcpErr, x.https.tcpErr, x.amqp.tcpErr = x.proxyErr, x.proxyErr, x.proxyErr
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() { x.knock(ctx, &x.mqtt) })
	if x.usesAMQPS() {
		wg.Go(func() { x.knock(ctx, &x.amqp) })
	}
	wg.Go(func() {
		x.knock(ctx, &x.https)
		if x.https.tcpErr != nil || x.https.tlsErr != nil {
			return
		}
		wg.Go(func() { x.hubTime = x.askTime(ctx) })
		x.https.webSocketErr = x.upgrade(ctx)
	})
	wg.Wait()
}

// knock makes a TCP connection and a TLS handshake.
func (x *examination) knock(ctx context.Context, d *door) {
	began := time.Now()
	tcp, cancel := x.step(ctx)
	defer cancel()
	conn, err := d.dial(tcp, x.Roots)
	d.took = time.Since(began)
	if d.tcpErr = err; err != nil {
		return
	}
	defer conn.Close()
	shake, cancel := x.step(ctx)
	defer cancel()
	secure := tls.Client(conn, x.unverified(d))
	d.tlsErr = secure.HandshakeContext(shake)
	d.chain = secure.ConnectionState().PeerCertificates
}

// unverified is for connections that carry no secret: what is wrong with the
// certificate is to be told, not only that something is.
func (x *examination) unverified(d *door) *tls.Config {
	return &tls.Config{ServerName: d.host, InsecureSkipVerify: true}
}

func (x *examination) checkHub() Check {
	c := x.Connection
	detail := c.HostName
	switch {
	case x.Provisioning != nil:
		detail += fmt.Sprintf(", id scope %s, as registration %q", x.Provisioning.Registration.IDScope, c.DeviceID)
	case c.ModuleID != "":
		detail += fmt.Sprintf(" as module %q of device %q", c.ModuleID, c.DeviceID)
	case c.DeviceID != "":
		detail += fmt.Sprintf(" as device %q", c.DeviceID)
	case c.SharedAccessKeyName != "":
		detail += fmt.Sprintf(" with policy %q", c.SharedAccessKeyName)
	case x.Credential != nil:
		detail += " with Entra ID"
	}
	if c.GatewayHostName != "" {
		detail += " behind the gateway " + c.GatewayHostName
	}
	if x.Source != "" {
		detail += ", from " + x.Source
	}
	return ok(CheckHub, detail)
}

func (x *examination) checkDNS(ctx context.Context) Check {
	host := x.mqtt.host
	switch {
	case x.MQTTSAddr != "" || x.HTTPSAddr != "":
		return skipped(CheckDNS, "the hub is on this machine")
	case x.https.proxy != nil:
		return skipped(CheckDNS, "the proxy looks up names")
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return skipped(CheckDNS, host+" is an address")
	}
	step, cancel := x.step(ctx)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupHost(step, host)
	if dns, ok := errors.AsType[*net.DNSError](err); ok && dns.IsNotFound {
		return failed(CheckDNS, fmt.Sprintf("there is no host %q", host),
			"check HostName in the connection string; a hub that was deleted, or that has a private endpoint, has no public name")
	}
	if err != nil {
		c := failed(CheckDNS, fmt.Sprintf("%q cannot be looked up: %s", host, plainError(err)), "check this machine's network and DNS server")
		c.TimedOut = isTimeout(err)
		return c
	}
	return ok(CheckDNS, host+" is "+strings.Join(addrs[:min(len(addrs), 3)], ", "))
}

func (x *examination) checkPort(d *door) Check {
	if d == &x.amqp && x.NoAMQPS {
		return skipped(d.port, "the hub does not listen for AMQP but over WebSocket")
	}
	if x.found(CheckDNS).Verdict == Failed {
		return skipped(d.port, "the hub's name has no address")
	}
	if x.found(CheckProxy).Verdict == Failed {
		return skipped(d.port, "the proxy is in the way")
	}
	by := ""
	if d.proxy != nil {
		by = " through the proxy"
	}
	if d.tcpErr == nil {
		return ok(d.port, fmt.Sprintf("%s answers%s, in %v", d.addr, by, d.took.Round(time.Millisecond/10)))
	}
	_, port := localhub.SplitPort(d.addr)
	otherWay := ""
	if d.what == "MQTT" && x.https.tcpErr == nil {
		otherWay = "; until then use MQTT over WebSocket, as \"iotdm device\" does by itself"
	}
	if d.what == "AMQP" && x.https.tcpErr == nil {
		otherWay = "; until then use AMQP over WebSocket, as \"iotdm service\" does by itself"
	}
	var c Check
	switch {
	case d.proxy != nil:
		c = failed(d.port, fmt.Sprintf("%s: %s", d.addr, plainError(d.tcpErr)), "have the proxy allow CONNECT to port "+port+otherWay)
	case errors.Is(d.tcpErr, syscall.ECONNREFUSED):
		c = failed(d.port, "nothing listens on "+d.addr, "check the host name, and that the hub runs; a firewall may also refuse port "+port+otherWay)
	case isTimeout(d.tcpErr):
		c = failed(d.port, fmt.Sprintf("%s does not answer within %v", d.addr, x.Timeout),
			"have the firewall let port "+port+" out"+otherWay)
	default:
		c = failed(d.port, d.addr+": "+plainError(d.tcpErr), "check this machine's network"+otherWay)
	}
	c.TimedOut = isTimeout(d.tcpErr)
	return d.unneeded(c)
}

func isTimeout(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout() || errors.Is(err, context.DeadlineExceeded)
}

// plainError is the reason in err without the names of operations around it.
func plainError(err error) string {
	if isTimeout(err) {
		return "no answer in time"
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err
	}
	if call, ok := errors.AsType[*os.SyscallError](err); ok {
		err = call.Err
	}
	return err.Error()
}
