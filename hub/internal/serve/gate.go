package serve

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Bounds of connections whose peer has not shown who it is. No public article
// says what the service allows; these are assumed.
const (
	// AuthTimeout is how long a peer may take from being accepted to the end of
	// the check of its credential: TLS, and CONNECT or the first request, all
	// together.
	AuthTimeout = 10 * time.Second

	// lastWords is how much longer it may be written to: net/http waits for the
	// body that a peer announced before it sends even a refusal.
	lastWords = time.Second

	// maxPending is how many such connections there may be at a time, over all
	// doors. Ten thousand devices that come back at once behind one address get
	// in by so many at a time, each in a few milliseconds of the hub's work; a
	// connection whose CONNECT never ends takes some 50 KB, so that a flood of
	// them takes 100 MB.
	maxPending = 2048

	// Each of them may send freeBytes: a ClientHello with a post-quantum key, a
	// chain of certificates, and a CONNECT or a request come to less. What is
	// more comes out of sharedBytes, which all of them share.
	freeBytes   = 8 << 10
	sharedBytes = 16 << 20

	// File descriptors kept for the store, which may have 1,000 files open, the
	// event log and the rest of the process: maxReserve, and at most a quarter
	// of what the process may have.
	maxReserve = 1280
)

// Why a connection ended that had not authenticated.
var (
	errCrowded = errors.New("too many connections have not authenticated yet, most of them from this address")
	errGreedy  = errors.New("connections that have not authenticated yet have sent too much")
)

// A Gate bounds what peers cost that nobody knows yet: the number of their
// connections, the time until they have authenticated, and the bytes they send
// before. It stands in front of all doors of a hub.
//
// Nobody has a share of the gate while there is room. When it is full, a
// newcomer takes the place of the oldest connection of that address which has
// the most, and is refused if its own address has as many: one address that
// floods the hub shuts out itself, and the fleet that comes back behind one
// address gets in by turns.
type Gate struct {
	maxPending, maxOpen int // maxOpen counts those that have authenticated too

	ended  *prometheus.CounterVec // by door and reason
	counts *prometheus.GaugeVec   // pending ones by door

	mu       sync.Mutex // guards what follows
	open     int
	waiting  int
	borrowed int // of sharedBytes
	arrivals uint64
	crowds   map[netip.Addr]*crowd
}

// A crowd is the connections of one address that wait, the oldest first.
type crowd struct {
	first, last *pending
	size        int
}

// NewGate returns a gate for a process that may open as many files as it may.
func NewGate() *Gate {
	g := &Gate{
		maxPending: maxPending, crowds: make(map[netip.Addr]*crowd),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "iotdm_hub_unauthenticated_connections_ended_total",
			Help: "Connections that the hub refused or closed before they had authenticated, by door and reason.",
		}, []string{"door", "reason"}),
		counts: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "iotdm_hub_unauthenticated_connections", Help: "Connections that have not authenticated yet, by door.",
		}, []string{"door"}),
	}
	g.limit(maxFiles())
	return g
}

// limit makes g leave a reserve of files, of which the process may have n; 0 is
// not known.
func (g *Gate) limit(n int) {
	g.maxOpen = n - min(maxReserve, n/4)
	if n > 0 {
		g.maxPending = min(g.maxPending, g.maxOpen/2)
	}
}

// Metrics returns what is counted, to be registered.
func (g *Gate) Metrics() []prometheus.Collector { return []prometheus.Collector{g.ended, g.counts} }

// Listen returns l with g in front of it. door names it in the metrics.
func (g *Gate) Listen(l net.Listener, door string) net.Listener {
	// What never happened is there too, as 0.
	for _, reason := range []string{"crowded", "files", "bytes", "timeout"} {
		g.ended.WithLabelValues(door, reason)
	}
	return &gateListener{Listener: l, gate: g, door: door, count: g.counts.WithLabelValues(door)}
}

type gateListener struct {
	net.Listener
	gate  *Gate
	door  string
	count prometheus.Gauge
}

// Accept returns the next connection that the gate lets in.
func (l *gateListener) Accept() (net.Conn, error) {
	for {
		nc, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if c := l.gate.admit(nc, l); c != nil {
			return c, nil
		}
		abort(nc)
	}
}

// abort closes a connection without leaving anything of it in the kernel.
func abort(nc net.Conn) {
	if t, ok := nc.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	nc.Close()
}

// admit returns nc with its bounds, or nil if there is no room for it.
func (g *Gate) admit(nc net.Conn, l *gateListener) *gateConn {
	p := &pending{from: placeOf(nc.RemoteAddr()), door: l, nc: nc, deadline: time.Now().Add(AuthTimeout)}
	c := &gateConn{Conn: nc, gate: g}
	c.pending.Store(p)

	g.mu.Lock()
	full, files := g.waiting >= g.maxPending, g.maxOpen > 0 && g.open >= g.maxOpen
	var out *pending
	if full || files {
		if out = g.oldestOfMost(p.from); out == nil {
			g.mu.Unlock()
			reason := "crowded"
			if !full {
				reason = "files"
			}
			g.ended.WithLabelValues(l.door, reason).Inc()
			return nil
		}
		g.remove(out)
	}
	g.open++
	g.add(p)
	g.mu.Unlock()

	if out != nil {
		out.why.Store(&errCrowded)
		g.ended.WithLabelValues(out.door.door, "crowded").Inc()
		abort(out.nc) // whoever serves it finds it closed
	}
	// Nothing is read or written yet that could have another deadline.
	_ = nc.SetReadDeadline(p.deadline)
	_ = nc.SetWriteDeadline(p.deadline.Add(lastWords))
	return c
}

// oldestOfMost returns the oldest connection of the address that has the most
// of them, unless from has as many.
func (g *Gate) oldestOfMost(from netip.Addr) *pending {
	most := 0
	if own := g.crowds[from]; own != nil {
		most = own.size
	}
	var found *crowd
	for _, c := range g.crowds {
		if c.size > most || found != nil && c.size == most && c.first.arrival < found.first.arrival {
			found, most = c, c.size
		}
	}
	if found == nil {
		return nil
	}
	return found.first
}

func (g *Gate) add(p *pending) {
	g.arrivals++
	p.arrival = g.arrivals
	c := g.crowds[p.from]
	if c == nil {
		c = new(crowd)
		g.crowds[p.from] = c
	}
	if p.before = c.last; p.before != nil {
		p.before.behind = p
	} else {
		c.first = p
	}
	c.last = p
	c.size++
	g.waiting++
	p.door.count.Inc()
}

// remove ends p's wait, if it has not ended.
func (g *Gate) remove(p *pending) {
	if p.done {
		return
	}
	p.done = true
	c := g.crowds[p.from]
	if p.before != nil {
		p.before.behind = p.behind
	} else {
		c.first = p.behind
	}
	if p.behind != nil {
		p.behind.before = p.before
	} else {
		c.last = p.before
	}
	if c.size--; c.size == 0 {
		delete(g.crowds, p.from)
	}
	g.waiting--
	g.borrowed -= p.borrowed
	p.borrowed = 0
	p.door.count.Dec()
}

func (g *Gate) leave(p *pending) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.remove(p)
}

// lend takes n bytes of those that all share, and reports whether there were
// so many.
func (g *Gate) lend(p *pending, n int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if p.done {
		return true
	}
	if g.borrowed+n > sharedBytes {
		return false
	}
	g.borrowed += n
	p.borrowed += n
	return true
}

// placeOf is where a peer comes from. Who has one IPv6 address has the 64 bits
// behind it.
func placeOf(a net.Addr) netip.Addr {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	ip := t.AddrPort().Addr().Unmap().WithZone("")
	if ip.Is6() {
		if p, err := ip.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return ip
}

// A gateConn is a connection that came in by a gate. Until Admit its deadlines
// are at most those of the gate.
type gateConn struct {
	net.Conn
	gate    *Gate
	pending atomic.Pointer[pending] // nil once it has authenticated
	closed  atomic.Bool
}

// A pending is what is kept of a connection until it has authenticated.
type pending struct {
	from     netip.Addr
	door     *gateListener
	nc       net.Conn
	deadline time.Time
	received int // by the one goroutine that reads
	why      atomic.Pointer[error]

	// Guarded by Gate.mu.
	before, behind *pending
	arrival        uint64
	borrowed       int
	done           bool

	mu          sync.Mutex // guards what follows, and the deadlines of nc
	read, write time.Time  // the deadlines that its server wants
	timedOut    bool
}

// Admit says that the peer of a connection is known: from then on the
// connection has the deadlines that its server has given it, and counts no
// longer. nc may be one that stands on the connection of a gate and says so by
// NetConn, as a *tls.Conn does. On others Admit does nothing.
func Admit(nc net.Conn) {
	for nc != nil {
		switch c := nc.(type) {
		case *gateConn:
			c.admit()
			return
		case interface{ NetConn() net.Conn }:
			nc = c.NetConn()
		default:
			return
		}
	}
}

func (c *gateConn) admit() {
	p := c.pending.Load()
	if p == nil {
		return
	}
	p.mu.Lock()
	_ = c.Conn.SetReadDeadline(p.read)
	_ = c.Conn.SetWriteDeadline(p.write)
	c.pending.Store(nil)
	p.mu.Unlock()
	c.gate.leave(p)
}

// Read counts what a peer sends that has not authenticated.
func (c *gateConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if p := c.pending.Load(); p != nil {
		return n, c.received(p, n, err)
	}
	return n, err
}

func (c *gateConn) received(p *pending, n int, err error) error {
	before := max(p.received, freeBytes)
	p.received += n
	if more := p.received - before; more > 0 && !c.gate.lend(p, more) && p.why.CompareAndSwap(nil, &errGreedy) {
		c.gate.ended.WithLabelValues(p.door.door, "bytes").Inc()
		abort(c.Conn)
	}
	if why := p.why.Load(); why != nil {
		return *why
	}
	if errors.Is(err, os.ErrDeadlineExceeded) && !time.Now().Before(p.deadline) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if !p.timedOut {
			p.timedOut = true
			c.gate.ended.WithLabelValues(p.door.door, "timeout").Inc()
		}
	}
	return err
}

// Close gives the place of the connection back.
func (c *gateConn) Close() error {
	if c.closed.CompareAndSwap(false, true) {
		if p := c.pending.Load(); p != nil {
			c.gate.leave(p)
		}
		c.gate.mu.Lock()
		c.gate.open--
		c.gate.mu.Unlock()
	}
	return c.Conn.Close()
}

// SetDeadline sets both deadlines.
func (c *gateConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline sets the deadline, or the gate's if that is earlier.
func (c *gateConn) SetReadDeadline(t time.Time) error {
	return c.setDeadline(func(p *pending) (*time.Time, time.Time) { return &p.read, p.deadline }, c.Conn.SetReadDeadline, t)
}

// SetWriteDeadline sets the deadline, or the gate's if that is earlier.
func (c *gateConn) SetWriteDeadline(t time.Time) error {
	return c.setDeadline(func(p *pending) (*time.Time, time.Time) { return &p.write, p.deadline.Add(lastWords) }, c.Conn.SetWriteDeadline, t)
}

func (c *gateConn) setDeadline(of func(*pending) (wanted *time.Time, latest time.Time), set func(time.Time) error, t time.Time) error {
	p := c.pending.Load()
	if p == nil {
		return set(t)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.pending.Load() == nil { // meanwhile
		return set(t)
	}
	wanted, latest := of(p)
	*wanted = t
	if t.IsZero() || t.After(latest) {
		t = latest
	}
	return set(t)
}
