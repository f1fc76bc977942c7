package mqttdevice

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"
)

const (
	// headStart is how long TCP is tried alone. A network that drops packets to port 8883 costs so much
	// once; one that is slow gets its connection over TCP nevertheless, if that is the first.
	headStart = 5 * time.Second
	// trust is for how long WebSocket is taken without looking at TCP. Whoever has a key connects about
	// once an hour to replace the token, with the old connection in use meanwhile.
	trust = time.Hour
)

type dialled struct {
	conn net.Conn
	err  error
	over Transport
}

// dialEither dials TCP and, if that is blocked, WebSocket.
func (d *dialer) dialEither(ctx context.Context) (net.Conn, error) {
	if d.notTCP != nil && time.Now().Before(d.until) {
		conn, err := d.routes[1].dial(ctx)
		if err != nil {
			d.notTCP = nil // then try both
		}
		return conn, err
	}
	// All that is started here has ended when it returns.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	results := make(chan dialled, len(d.routes))
	start := func(r *route) {
		go func() {
			conn, err := r.dial(ctx)
			results <- dialled{conn, err, r.transport}
		}()
	}
	running := 1
	start(&d.routes[0])
	alone := time.NewTimer(d.headStart)
	defer alone.Stop()
	var failed [2]error // by transport
	failed[TCP] = fmt.Errorf("%s has not answered for %v", d.routes[0].addr, d.headStart)
	var won *dialled
	for second := false; running > 0; {
		useSecond := false
		select {
		case r := <-results:
			running--
			switch {
			case r.err == nil && won == nil:
				won = &r
				cancel(errors.New("another way was faster"))
			case r.err == nil:
				r.conn.Close()
			case won == nil:
				failed[r.over] = r.err
				useSecond = r.over == TCP && blocked(ctx, r.err)
			}
		case <-alone.C:
			useSecond = won == nil
		}
		if useSecond && !second {
			second = true
			running++
			start(&d.routes[1])
		}
	}
	switch {
	case won != nil && won.over == WebSocket:
		d.avoidTCP(failed[TCP])
		return won.conn, nil
	case won != nil:
		d.notTCP = nil
		return won.conn, nil
	case failed[WebSocket] == nil:
		return nil, failed[TCP]
	}
	return nil, fmt.Errorf("%w; over WebSocket: %w", failed[TCP], failed[WebSocket])
}

// avoidTCP makes WebSocket the first choice for a while.
func (d *dialer) avoidTCP(reason error) {
	d.notTCP, d.until = reason, time.Now().Add(trust)
	d.log.Warn("TCP is blocked, using WebSocket", logAddr, d.routes[0].addr, logError, reason)
}

// silent notes that the hub did not answer on a stream that had been made, which by Auto may be the
// work of something on the way that lets TLS through and MQTT not.
func (d *dialer) silent(r route) {
	if len(d.routes) > 1 && r.transport == TCP {
		d.notTCP, d.until = ErrNoAnswer, time.Now().Add(trust)
	}
}

// blocked reports whether TCP failed in a way that WebSocket may not. A name that is not known, a
// certificate that is wrong and a caller who cannot wait are the same for both.
func blocked(ctx context.Context, err error) bool {
	var dns *net.DNSError
	var certificate *tls.CertificateVerificationError
	return ctx.Err() == nil && !errors.As(err, &dns) && !errors.As(err, &certificate)
}
