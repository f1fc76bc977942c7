package dial

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"
)

const (
	// HeadStart is how long a Dialer tries TCP alone. A network that drops packets to its port costs so much
	// once; one that is slow gets its connection over TCP nevertheless, if that is the first.
	HeadStart = 5 * time.Second
	// trust is for how long WebSocket is taken without looking at TCP. Whoever has a key connects about
	// once an hour to replace the token, with the old connection in use meanwhile.
	trust = time.Hour
)

// A Dialer dials a hub by the best of its routes that works. It is used by one goroutine at a time.
type Dialer struct {
	// Routes are one, or TCP and WebSocket: this is taken where that is blocked, and then for an hour.
	Routes    []Route
	Log       *slog.Logger
	HeadStart time.Duration // of TCP; see the constant

	NotTCP error     // why not TCP; nil while it is good
	Until  time.Time // when that is looked at again
}

// Dial connects by the best route that works.
func (d *Dialer) Dial(ctx context.Context) (net.Conn, error) {
	if len(d.Routes) == 1 {
		return d.Routes[0].Dial(ctx)
	}
	return d.dialEither(ctx)
}

// RouteOf tells by which route a stream was dialled, and why not by a better one.
func (d *Dialer) RouteOf(stream net.Conn) (route *Route, instead error) {
	if len(d.Routes) > 1 && IsWebSocket(stream) {
		return &d.Routes[1], d.NotTCP
	}
	return &d.Routes[0], nil
}

// Silent notes that the hub did not answer on a stream that had been made by route, which with two of them may
// be the work of something on the way that lets TLS through and the protocol not.
func (d *Dialer) Silent(route *Route, reason error) {
	if len(d.Routes) > 1 && route == &d.Routes[0] {
		d.NotTCP, d.Until = reason, time.Now().Add(trust)
	}
}

type dialled struct {
	conn net.Conn
	err  error
	over int // the route
}

// The routes of a dialer that has two.
const (
	overTCP = iota
	overWebSocket
)

// dialEither dials TCP and, if that is blocked, WebSocket.
func (d *Dialer) dialEither(ctx context.Context) (net.Conn, error) {
	if d.NotTCP != nil && time.Now().Before(d.Until) {
		conn, err := d.Routes[overWebSocket].Dial(ctx)
		if err != nil {
			d.NotTCP = nil // then try both
		}
		return conn, err
	}
	// All that is started here has ended when it returns.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	results := make(chan dialled, len(d.Routes))
	start := func(over int) {
		go func() {
			conn, err := d.Routes[over].Dial(ctx)
			results <- dialled{conn, err, over}
		}()
	}
	running := 1
	start(overTCP)
	alone := time.NewTimer(d.HeadStart)
	defer alone.Stop()
	var failed [2]error
	failed[overTCP] = fmt.Errorf("%s has not answered for %v", d.Routes[overTCP].Addr, d.HeadStart)
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
				useSecond = r.over == overTCP && blocked(ctx, r.err)
			}
		case <-alone.C:
			useSecond = won == nil
		}
		if useSecond && !second {
			second = true
			running++
			start(overWebSocket)
		}
	}
	switch {
	case won != nil && won.over == overWebSocket:
		d.avoidTCP(failed[overTCP])
		return won.conn, nil
	case won != nil:
		d.NotTCP = nil
		return won.conn, nil
	case failed[overWebSocket] == nil:
		return nil, failed[overTCP]
	}
	return nil, fmt.Errorf("%w; over WebSocket: %w", failed[overTCP], failed[overWebSocket])
}

// avoidTCP makes WebSocket the first choice for a while.
func (d *Dialer) avoidTCP(reason error) {
	d.NotTCP, d.Until = reason, time.Now().Add(trust)
	d.Log.Warn("TCP is blocked, using WebSocket", "addr", d.Routes[overTCP].Addr, "error", reason)
}

// blocked reports whether TCP failed in a way that WebSocket may not. A name that is not known, a
// certificate that is wrong and a caller who cannot wait are the same for both.
func blocked(ctx context.Context, err error) bool {
	var dns *net.DNSError
	var certificate *tls.CertificateVerificationError
	return ctx.Err() == nil && !errors.As(err, &dns) && !errors.As(err, &certificate)
}
