// Package mqtt is a hub's door for MQTT 3.1.1: it parses and prints what
// "Communicate with IoT Hub using the MQTT protocol" says, and decides nothing.
//
// It is a session loop of its own over net.Conn and no broker: every device
// subscribes to the same topics, so that messages go by connection and never by
// topic.
package mqtt

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/serve"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/hub/provisioning"
)

// connectTimeout is how long a peer may take from being accepted to the end of
// CONNECT, however often it sends a byte.
const connectTimeout = serve.AuthTimeout

// Reasons why a connection ended that are the device's own.
var (
	errDisconnect = errors.New("the device disconnected")
	errLost       = errors.New("the device closed the connection without DISCONNECT")
	errSilent     = errors.New("the device was silent for longer than its keep-alive allows")
	errNoConnect  = errors.New("no CONNECT in time")
	errSlowReader = errors.New("the peer does not read what it is sent")
)

// Options configure New. The zero value works.
type Options struct {
	// Provisioning registers devices that ask for their hub. Nil refuses them.
	Provisioning *provisioning.Service

	Logger *slog.Logger // nil discards
}

// A Door serves MQTT connections.
type Door struct {
	hub *hub.Server
	dps *provisioning.Service // nil if there is none
	log *slog.Logger
	far *words.Limited // about peers that are not let in
	rid atomic.Uint64  // the last request id of a direct method

	metrics *metrics

	ctx     context.Context // ends when the door closes
	running *serve.Group
}

// New returns a door to h.
func New(h *hub.Server, opt Options) *Door {
	d := &Door{
		hub: h, dps: opt.Provisioning, log: cmp.Or(opt.Logger, slog.New(slog.DiscardHandler)),
		running: serve.NewGroup(), metrics: newMetrics(),
	}
	d.far = words.NewLimited(d.log)
	d.ctx = d.running.Context()
	return d
}

// ServeTLS serves MQTT over TLS on l until the door closes, and then returns
// serve.ErrClosed. It owns l.
func (d *Door) ServeTLS(l net.Listener, config *tls.Config) error {
	return d.running.Accept(l, "MQTT over TLS", d.log, func(nc net.Conn) { d.handshake(tls.Server(nc, config), d.metrics.tls) })
}

// Serve serves MQTT over plain TCP on l as ServeTLS does. Keys and tokens cross
// the network readable: it is for loopback.
func (d *Door) Serve(l net.Listener) error {
	return d.running.Accept(l, "MQTT without TLS", d.log, func(nc net.Conn) { d.handshake(nc, d.metrics.plain) })
}

// ServeConn serves one connection, which was made to the host, and whose peer has
// shown the certificates of chain. It owns nc, and does not wait for its end.
func (d *Door) ServeConn(nc net.Conn, host string, chain []*x509.Certificate) {
	deadline := time.Now().Add(connectTimeout)
	if !d.running.Go(func() { d.begin(nc, host, chain, deadline, d.metrics.webSocket) }) {
		nc.Close()
	}
}

// StopListening closes the listeners; connections go on.
func (d *Door) StopListening() { d.running.StopListening() }

// Close ends all connections and returns when they have ended.
func (d *Door) Close() {
	d.running.Close()
	d.running.Wait()
}

// handshake takes an accepted connection as far as CONNACK. Its stack grows
// with TLS and the check of the credential, and so the goroutine ends there:
// the connection goes on in a new one, whose stack is small.
func (d *Door) handshake(nc net.Conn, over *serve.Connections) {
	deadline := time.Now().Add(connectTimeout)
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

// logHandshake tells the operator of a client that doesn't trust the hub, or
// of one that isn't MQTT, and not of one that only tried whether the port is
// open.
func (d *Door) logHandshake(nc net.Conn, err error, over *serve.Connections) {
	if errors.Is(err, io.EOF) || d.ctx.Err() != nil {
		return
	}
	d.hub.Refused(hub.Peer{Door: over.Door, Remote: nc.RemoteAddr().String()}, whyTLS, err)
	d.far.Info("TLS handshake failed", slog.String(words.LogRemote, nc.RemoteAddr().String()), slog.Any(words.LogReason, err))
}

// begin reads CONNECT, which has to be there by the deadline, and serves the
// connection in a goroutine of its own if it is accepted.
func (d *Door) begin(nc net.Conn, host string, chain []*x509.Certificate, deadline time.Time, over *serve.Connections) {
	over.In(stateOpening).Inc()
	defer over.In(stateOpening).Dec()
	c := &conn{door: d, net: nc, over: over, gone: make(chan struct{})}
	c.peer.Door, c.peer.Remote = over.Door, nc.RemoteAddr().String()
	nc.SetDeadline(deadline)
	stop := context.AfterFunc(d.ctx, func() { c.End(hub.ErrClosing) })
	err := d.readConnect(c, host, chain)
	stop()
	if err == nil {
		over.In(stateOpen).Inc()
		serve.Admit(nc)
		d.log.Info("connected", c.who(), slog.String(words.LogRemote, c.peer.Remote))
		if !d.running.Go(func() { d.serve(c) }) {
			d.finish(c, hub.ErrClosing)
		}
		return
	}
	if !time.Now().Before(deadline) {
		err = errNoConnect
	}
	d.noteRefusal(c, err)
	c.flush()
	c.End(err)
	nc.Close()
	c.in.release()
	over.Refused(why(c.reason))
	d.far.Info("connection refused", c.who(), slog.String(words.LogRemote, c.peer.Remote), slog.Any(words.LogReason, c.reason))
}

// noteRefusal tells the rules of a peer that is not accepted, unless it was not
// heard to the end.
func (d *Door) noteRefusal(c *conn, err error) {
	word := why(err)
	switch word {
	case whyClosing, whyTimeout, whyLost:
		return
	}
	if r, ok := errors.AsType[*refusal](err); ok {
		err = r.reason
	}
	d.hub.Refused(c.peer, word, err)
}

func (d *Door) readConnect(c *conn, host string, chain []*x509.Certificate) error {
	for {
		header, body, ok, err := c.in.take(maxConnectPacket)
		if err != nil {
			return err
		}
		if !ok {
			if first, ok := c.in.peek(); ok && first != packets.Connect<<4 {
				return errors.New("the first packet is not CONNECT")
			}
			if err := c.in.fill(c.net); err != nil {
				return fault{err, whyLost}
			}
			continue
		}
		p, err := decodePacket(header, body)
		if err != nil {
			return err
		}
		connect, ok := p.(*packets.ConnectPacket)
		if !ok {
			return errors.New("the first packet is not CONNECT")
		}
		return d.connect(c, connect, host, chain)
	}
}

// serve reads packets until the connection ends.
func (d *Door) serve(c *conn) {
	err := d.readPackets(c)
	c.flush() // what was answered before
	d.finish(c, err)
}

func (d *Door) readPackets(c *conn) error {
	heard := time.Now()
	for {
		header, body, ok, err := c.in.take(maxPacket)
		if err != nil {
			return err
		}
		if ok {
			heard = time.Now()
			c.heard.Store(d.hub.Now().UnixNano())
			if err := d.handle(c, header, body); err != nil {
				return err
			}
			if c.backlog() >= maxBatch {
				c.flush()
			}
			continue
		}
		c.flush()
		deadline, reason := soon(heard, c.keepAlive), errSilent
		if !c.expires.IsZero() && c.expires.Before(deadline) {
			deadline, reason = c.expires, hub.ErrExpired
		}
		if err := c.readUntil(deadline); err != nil {
			return err
		}
		if err := c.in.fill(c.net); err != nil {
			if !time.Now().Before(deadline) {
				return reason
			}
			return fault{err, whyLost}
		}
	}
}

// finish ends c with all that hangs on it.
func (d *Door) finish(c *conn, err error) {
	if errors.Is(err, io.EOF) {
		err = errLost
	}
	c.End(err)
	reason := c.reason // set once, and by now it is
	if c.asks != nil {
		c.asks.leave()
	} else {
		d.hub.Detach(c, why(reason), reason)
	}
	close(c.gone)
	c.net.Close()
	c.writers.Wait()
	c.in.release()
	c.over.In(stateOpen).Dec()
	c.over.Closed(why(reason))
	if c.will != nil && reason != errDisconnect && reason != hub.ErrClosing && reason != hub.ErrReset {
		lost := func(err error) {
			if err != nil {
				d.log.Warn("a will was lost", words.LogID, c.peer.ID.String(), words.LogReason, err)
			}
		}
		if err := d.hub.ReceiveTelemetry(c.peer, *c.will, lost); err != nil {
			lost(err)
		}
	}
	d.log.Info("disconnected", c.who(), slog.Any(words.LogReason, reason))
}

// who names the peer in the log.
func (c *conn) who() slog.Attr {
	key := words.LogID
	if c.asks != nil {
		key = words.LogRegistration
	}
	return slog.String(key, c.peer.ID.String())
}
