package natstest

import (
	"io"
	"net"
	"sync"
	"testing"
)

// A Direction is a way through a Proxy.
type Direction int

// The directions that can be cut: none, what the client sends, what the server
// sends, or both.
const (
	None  Direction = 0
	Forth Direction = 1
	Back  Direction = 2
	Both            = Forth | Back
)

// A Proxy is a listener that hands on what it gets, and can stop doing so without
// closing anything, as a cut cable does.
type Proxy struct {
	listener net.Listener

	mu     sync.Mutex // guards what follows
	target string     // empty: nobody is there
	cut    Direction
	healed chan struct{} // closed when cut changes
	conns  map[net.Conn]bool
	closed bool
}

// NewProxy returns a proxy that ends with the test. Its target may be set later.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{listener: l, target: target, healed: make(chan struct{}), conns: make(map[net.Conn]bool)}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { p.serve(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		p.mu.Lock()
		p.closed = true
		close(p.healed)
		for c := range p.conns {
			_ = c.Close()
		}
		p.mu.Unlock()
		wg.Wait()
	})
	return p
}

// Addr is where the proxy listens.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// SetTarget has new connections go elsewhere. An empty target refuses them.
func (p *Proxy) SetTarget(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}

// Cut holds back what goes in a direction, until another Cut. What was held back
// comes then.
func (p *Proxy) Cut(d Direction) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.cut = d
	close(p.healed)
	p.healed = make(chan struct{})
}

// Break closes all connections.
func (p *Proxy) Break() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
}

// enter remembers a connection.
func (p *Proxy) enter(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.conns[c] = true
	}
	return !p.closed
}

func (p *Proxy) leave(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
	_ = c.Close()
}

func (p *Proxy) serve(client net.Conn) {
	if !p.enter(client) {
		_ = client.Close()
		return
	}
	defer p.leave(client)
	p.mu.Lock()
	target := p.target
	p.mu.Unlock()
	server, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	if !p.enter(server) {
		_ = server.Close()
		return
	}
	defer p.leave(server)
	var wg sync.WaitGroup
	pump := func(to, from net.Conn, d Direction) {
		wg.Go(func() {
			_, _ = io.Copy(&gated{to, p, d}, from)
			_ = to.Close()
			_ = from.Close()
		})
	}
	pump(server, client, Forth)
	pump(client, server, Back)
	wg.Wait()
}

// gated writes while its direction is not cut.
type gated struct {
	io.Writer
	proxy *Proxy
	d     Direction
}

func (g *gated) Write(b []byte) (int, error) {
	for {
		g.proxy.mu.Lock()
		cut, healed, closed := g.proxy.cut, g.proxy.healed, g.proxy.closed
		g.proxy.mu.Unlock()
		if closed {
			return 0, net.ErrClosed
		}
		if cut&g.d == 0 {
			return g.Writer.Write(b)
		}
		<-healed
	}
}
