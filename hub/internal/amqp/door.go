// Package amqp is a hub's door for AMQP 1.0: it parses and prints what "Communicate
// with your IoT hub by using the AMQP Protocol" says, and what Event Hubs' clients
// say to the built-in endpoint, and decides nothing.
//
// Package wire is the encoding and package engine the transport; here is what an
// address means ([parseAddress]), what a peer has proved (claims), and what goes
// over each kind of link.
package amqp

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/amqp/engine"
	"github.com/iotdm/iotdm/hub/internal/serve"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/hub/provisioning"
)

// EventHubName is the name of the built-in endpoint that is compatible with
// Event Hubs: the EntityPath of its connection strings.
const EventHubName = "iothub-ehub-iotdm"

// containerID is what the hub calls itself.
const containerID = "iotdm"

// lastWords is how long peers may take to answer the close of a hub that stops.
const lastWords = time.Second

// errUnknown is why a connection ended whose peer nobody knows.
var errUnknown = errors.New("the peer has not shown in time who it is: no token came, nor a link of the client certificate's device")

// Options configure New. The zero value works.
type Options struct {
	// EventSources are those of the events that readers of the built-in endpoint
	// get. None is telemetry alone, as on IoT Hub without routes.
	EventSources []hub.EventSource

	// Provisioning registers devices that ask for their hub. Nil refuses them.
	Provisioning *provisioning.Service

	Logger *slog.Logger // nil discards
}

// A Door serves AMQP connections.
type Door struct {
	hub *hub.Server
	opt Options
	log *slog.Logger
	far *words.Limited // about peers that are not let in, and refusals that they can cause

	metrics *metrics

	ctx     context.Context // ends when the door closes
	running *serve.Group
}

// New returns a door to h.
func New(h *hub.Server, opt Options) *Door {
	d := &Door{hub: h, opt: opt, log: cmp.Or(opt.Logger, slog.New(slog.DiscardHandler)), running: serve.NewGroup(), metrics: newMetrics()}
	d.far = words.NewLimited(d.log)
	d.ctx = d.running.Context()
	return d
}

// ServeTLS serves AMQP over TLS on l until the door closes, and then returns
// serve.ErrClosed. It owns l.
func (d *Door) ServeTLS(l net.Listener, config *tls.Config) error {
	return d.running.Accept(l, "AMQP over TLS", d.log, func(nc net.Conn) { d.handshake(tls.Server(nc, config), d.metrics.tls) })
}

// Serve serves AMQP over plain TCP on l as ServeTLS does. Keys and tokens cross
// the network readable: it is for loopback.
func (d *Door) Serve(l net.Listener) error {
	return d.running.Accept(l, "AMQP without TLS", d.log, func(nc net.Conn) { d.handshake(nc, d.metrics.plain) })
}

// ServeConn serves one connection, which was made to the host, and whose peer has
// shown the certificates of chain. It owns nc, and does not wait for its end.
func (d *Door) ServeConn(nc net.Conn, host string, chain []*x509.Certificate) {
	deadline := time.Now().Add(serve.AuthTimeout)
	if !d.running.Go(func() { d.begin(nc, host, chain, deadline, d.metrics.webSocket) }) {
		nc.Close()
	}
}

// StopListening closes the listeners; connections go on.
func (d *Door) StopListening() { d.running.StopListening() }

// Close ends all connections and returns when they have ended. What was being
// done for their peers is answered before.
func (d *Door) Close() {
	d.running.Close()
	d.running.Wait()
}

// handshake takes an accepted connection as far as the header of AMQP. Its stack
// grows with TLS and the check of a credential, and so the goroutine ends there:
// the connection goes on in a new one, whose stack is small.
func (d *Door) handshake(nc net.Conn, over *serve.Connections) {
	deadline := time.Now().Add(serve.AuthTimeout)
	nc.SetDeadline(deadline)
	var host string
	var chain []*x509.Certificate
	if t, ok := nc.(*tls.Conn); ok {
		over.In(stateOpening).Inc()
		err := t.HandshakeContext(d.ctx)
		over.In(stateOpening).Dec()
		if err != nil {
			nc.Close()
			over.Refused(whyTLS)
			d.logHandshake(nc, err, over)
			return
		}
		state := t.ConnectionState()
		host, chain = state.ServerName, state.PeerCertificates
	}
	d.begin(nc, host, chain, deadline, over)
}

// logHandshake tells the operator of a client that doesn't trust the hub, or of
// one that doesn't speak TLS, and not of one that only tried whether the port is
// open.
func (d *Door) logHandshake(nc net.Conn, err error, over *serve.Connections) {
	if errors.Is(err, io.EOF) || d.ctx.Err() != nil {
		return
	}
	reason := slog.Any(words.LogReason, err)
	var record tls.RecordHeaderError
	if errors.As(err, &record) && record.Conn != nil {
		reason = slog.String(words.LogReason, "the peer speaks "+withoutTLS(string(record.RecordHeader[:]))+" where AMQP over TLS is served")
	}
	d.hub.Refused(hub.Peer{Door: over.Door, Remote: nc.RemoteAddr().String()}, whyTLS, err)
	d.far.Info("TLS handshake failed", slog.String(words.LogRemote, nc.RemoteAddr().String()), reason)
}

// withoutTLS says which protocol begins so, by its first five bytes, in place of
// TLS.
func withoutTLS(first string) string {
	if first[:4] == "AMQP" {
		return "AMQP without TLS"
	}
	return protocolOf(first)
}

// begin exchanges headers and SASL frames, which has to be done by the deadline,
// and serves the connection in a goroutine of its own if that went well.
func (d *Door) begin(nc net.Conn, host string, chain []*x509.Certificate, deadline time.Time, over *serve.Connections) {
	c := &conn{door: d, over: over, chain: chain, dialed: host}
	c.Conn = engine.New(nc, engine.Options{
		Container: containerID,
		Queued:    func(n int) { d.metrics.queued.Add(int64(n)) },
		Now:       d.hub.Now,
	})
	over.In(stateOpening).Inc()
	nc.SetDeadline(deadline)
	stop := context.AfterFunc(d.ctx, func() { c.drop(hub.ErrClosing) })
	err := c.greet()
	stop()
	if err == nil {
		nc.SetDeadline(time.Time{}) // until the peer is known, the gate's holds, and await's
		c.claims.await(c, deadline)
		if d.running.Go(func() { d.serve(c) }) {
			return
		}
		err = hub.ErrClosing
	}
	if !time.Now().Before(deadline) {
		err = errUnknown
	}
	c.drop(err)
	nc.Close()
	d.finish(c)
}

// serve reads frames until the connection ends.
func (d *Door) serve(c *conn) {
	stop := context.AfterFunc(d.ctx, func() {
		c.work.close() // what was begun is answered
		c.shut(hub.ErrClosing)
		time.AfterFunc(lastWords, func() { c.drop(hub.ErrClosing) })
	})
	err := c.Serve(c)
	stop()
	if err == nil {
		err = engine.ErrClosed
	}
	c.ended(err)
	c.devices.gone()
	d.finish(c)
}

// finish counts the end of c and tells of it.
func (d *Door) finish(c *conn) {
	c.claims.end()
	c.work.close()
	c.registrant.gone()
	reason := c.why()
	attrs := []slog.Attr{slog.String(words.LogRemote, c.remote()), slog.Any(words.LogReason, reason)}
	c.mu.Lock()
	who, known := c.who, c.admitted
	c.mu.Unlock()
	switch {
	case !known:
		c.over.In(stateOpening).Dec()
		c.over.Refused(wordOf(reason))
		if wordOf(reason) == whyViolation {
			c.refused(hub.ID{}, reason)
		}
		d.far.Info("connection refused", attrs...)
	default:
		c.over.In(stateOpen).Dec()
		c.over.Closed(wordOf(reason))
		if who != "" {
			d.log.LogAttrs(d.ctx, slog.LevelInfo, "disconnected", append(attrs, slog.String(words.LogCaller, who))...)
		}
	}
}
