package hub

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

const (
	// connectTimeout is how long a peer may take from its first byte, or the
	// lack of one, to the end of CONNECT.
	connectTimeout = 60 * time.Second

	// A listener that cannot accept, because file descriptors have run out,
	// tries again after minAcceptDelay, and twice that up to maxAcceptDelay.
	minAcceptDelay = 5 * time.Millisecond
	maxAcceptDelay = time.Second
)

// Reasons why a connection ended that are the device's own.
var (
	errDisconnect = errors.New("the device disconnected")
	errLost       = errors.New("the device closed the connection without DISCONNECT")
	errSilent     = errors.New("the device was silent for longer than its keep-alive allows")
	errNoConnect  = errors.New("no CONNECT in time")
)

// ServeMQTTS serves MQTT over TLS on l until the server closes, and then
// returns ErrClosed. It owns l.
func (s *Server) ServeMQTTS(l net.Listener) error {
	config := s.TLSConfig()
	return s.serveMQTT(l, "MQTT over TLS", func(nc net.Conn) net.Conn { return tls.Server(nc, config) })
}

// ServeMQTT serves MQTT over plain TCP on l until the server closes, and then
// returns ErrClosed. It owns l. Keys and tokens cross the network readable:
// it is for loopback.
func (s *Server) ServeMQTT(l net.Listener) error {
	return s.serveMQTT(l, "MQTT without TLS", func(nc net.Conn) net.Conn { return nc })
}

func (s *Server) serveMQTT(l net.Listener, what string, wrap func(net.Conn) net.Conn) error {
	untrack, err := s.track(l)
	if err != nil {
		return err
	}
	defer untrack()
	s.log.Info("listening for "+what, logAddr, l.Addr().String())
	delay := minAcceptDelay
	for {
		nc, err := l.Accept()
		if err == nil {
			delay = minAcceptDelay
			if !s.goroutine(func() { s.handshake(wrap(nc)) }) {
				nc.Close()
			}
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return ErrClosed
		}
		if temporary, ok := err.(interface{ Temporary() bool }); !ok || !temporary.Temporary() {
			return fmt.Errorf("serve %s on %s: %w", what, l.Addr(), err)
		}
		s.log.Warn("cannot accept a connection", logAddr, l.Addr().String(), logReason, err)
		select {
		case <-time.After(delay):
		case <-s.ctx.Done():
			return ErrClosed
		}
		delay = min(2*delay, maxAcceptDelay)
	}
}

// handshake takes an accepted connection as far as CONNACK. Its stack grows
// with TLS and the check of the credential, and so the goroutine ends there:
// the connection goes on in a new one, whose stack is small.
func (s *Server) handshake(nc net.Conn) {
	deadline := time.Now().Add(connectTimeout)
	nc.SetDeadline(deadline)
	var chain []*x509.Certificate
	if t, ok := nc.(*tls.Conn); ok {
		if err := t.HandshakeContext(s.ctx); err != nil {
			nc.Close()
			s.logHandshake(nc, err)
			return
		}
		chain = t.ConnectionState().PeerCertificates
	}
	s.begin(nc, chain, deadline)
}

// logHandshake tells the operator of a client that doesn't trust the hub, or
// of one that isn't MQTT, and not of one that only tried whether the port is
// open.
func (s *Server) logHandshake(nc net.Conn, err error) {
	if errors.Is(err, io.EOF) || s.ctx.Err() != nil {
		return
	}
	s.log.Info("TLS handshake failed", logRemote, nc.RemoteAddr().String(), logReason, err)
}

// begin reads CONNECT, which has to be there by the deadline, and serves the
// connection in a goroutine of its own if it is accepted.
func (s *Server) begin(nc net.Conn, chain []*x509.Certificate, deadline time.Time) {
	c := &conn{server: s, net: nc, gone: make(chan struct{})}
	nc.SetDeadline(deadline)
	stop := context.AfterFunc(s.ctx, func() { c.end(errHubClosed) })
	err := s.readConnect(c, chain)
	stop()
	if err == nil {
		s.log.Info("connected", logID, c.id.String(), logRemote, nc.RemoteAddr().String())
		if !s.goroutine(func() { s.serve(c) }) {
			s.finish(c, errHubClosed)
		}
		return
	}
	if !time.Now().Before(deadline) {
		err = errNoConnect
	}
	c.flush()
	c.end(err)
	nc.Close()
	c.in.release()
	s.log.Info("connection refused", logID, c.id.String(), logRemote, nc.RemoteAddr().String(), logReason, c.reason)
}

func (s *Server) readConnect(c *conn, chain []*x509.Certificate) error {
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
				return err
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
		return s.connect(c, connect, chain)
	}
}

// serve reads packets until the connection ends.
func (s *Server) serve(c *conn) {
	err := s.readPackets(c)
	c.flush() // what was answered before
	s.finish(c, err)
}

func (s *Server) readPackets(c *conn) error {
	heard := time.Now()
	for {
		header, body, ok, err := c.in.take(maxPacket)
		if err != nil {
			return err
		}
		if ok {
			heard = time.Now()
			c.heard.Store(s.now().UnixNano())
			if err := s.handle(c, header, body); err != nil {
				return err
			}
			if c.backlog() >= maxBatch {
				c.flush()
			}
			continue
		}
		c.flush()
		deadline, reason := heard.Add(c.keepAlive), errSilent
		if !c.expires.IsZero() && c.expires.Before(deadline) {
			deadline, reason = c.expires, errExpired
		}
		if err := c.setDeadline(c.net.SetReadDeadline, deadline); err != nil {
			return err
		}
		if err := c.in.fill(c.net); err != nil {
			if !time.Now().Before(deadline) {
				return reason
			}
			return err
		}
	}
}

// finish ends c with all that hangs on it.
func (s *Server) finish(c *conn, err error) {
	if errors.Is(err, io.EOF) {
		err = errLost
	}
	c.end(err)
	s.detach(c)
	close(c.gone)
	c.net.Close()
	c.writers.Wait()
	c.in.release()
	s.releaseMessages(c)
	reason := c.reason // set once, and by now it is
	if c.will != nil && reason != errDisconnect && reason != errHubClosed {
		if err := s.receiveTelemetry(c.id, c.grant, c.model, *c.will, s.eventLost); err != nil {
			s.log.Warn("a will was lost", logID, c.id.String(), logReason, err)
		}
	}
	s.log.Info("disconnected", logID, c.id.String(), logReason, reason)
}
