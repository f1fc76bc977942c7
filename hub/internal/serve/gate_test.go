package serve

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

// A fakeConn is one end of a pipe, and comes from an address.
type fakeConn struct {
	net.Conn
	from   net.Addr
	closed bool
}

func (c *fakeConn) RemoteAddr() net.Addr { return c.from }
func (c *fakeConn) Close() error         { c.closed = true; return c.Conn.Close() }

// A door is a gate with one listener.
type door struct {
	t    *testing.T
	gate *Gate
	l    *gateListener
}

func newDoor(t *testing.T, g *Gate) *door {
	return &door{t, g, g.Listen(nil, "test").(*gateListener)}
}

// arrive lets a peer come from an address, and returns its end, and the hub's,
// which is nil if it was refused.
func (d *door) arrive(ip string) (far *fakeConn, peer net.Conn, c net.Conn) {
	near, peer := net.Pipe()
	d.t.Cleanup(func() { near.Close(); peer.Close() })
	far = &fakeConn{Conn: near, from: &net.TCPAddr{IP: net.ParseIP(ip), Port: 1}}
	if admitted := d.gate.admit(far, d.l); admitted != nil {
		c = admitted
	}
	return far, peer, c
}

// counted returns a metric of the gate, by reason if it has one.
func (d *door) counted(name string) map[string]float64 {
	d.t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(d.gate.Metrics()...)
	families, err := registry.Gather()
	if err != nil {
		d.t.Fatal(err)
	}
	found := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() != name {
				continue
			}
			reason := ""
			for _, l := range m.GetLabel() {
				if l.GetName() == "reason" {
					reason = l.GetValue()
				}
			}
			found[reason] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return found
}

// wantEnded checks how many connections the gate has ended, such as "bytes 1".
func (d *door) wantEnded(want string) {
	d.t.Helper()
	counts := map[string]float64{"bytes": 0, "crowded": 0, "files": 0, "timeout": 0}
	if reason, n, ok := strings.Cut(want, " "); ok {
		counts[reason], _ = strconv.ParseFloat(n, 64)
	}
	if diff := cmp.Diff(counts, d.counted("iotdm_hub_unauthenticated_connections_ended_total")); diff != "" {
		d.t.Errorf("ended (-want +got):\n%s", diff)
	}
}

func TestAFullGateLetsInWhoHasFewest(t *testing.T) {
	for name, tt := range map[string]struct {
		arrive   []string
		open     string // which of them are open in the end
		refusals string
	}{
		"room for all":                     {[]string{"a", "a", "a", "a"}, "++++", ""},
		"an address that floods":           {[]string{"a", "a", "a", "a", "a", "a"}, "++++--", "crowded 2"},
		"another address comes":            {[]string{"a", "a", "a", "a", "b"}, "-++++", "crowded 1"},
		"and again":                        {[]string{"a", "a", "a", "a", "b", "b", "b"}, "--++++-", "crowded 3"},
		"the biggest of several":           {[]string{"b", "a", "a", "c", "d"}, "+-+++", "crowded 1"},
		"the oldest, where all are alike":  {[]string{"b", "a", "c", "d", "e"}, "-++++", "crowded 1"},
		"one network of IPv6 is one place": {[]string{"6", "7", "6", "7", "b", "6"}, "-++++-", "crowded 2"},
		"IPv4 within IPv6 is IPv4":         {[]string{"a", "4", "a", "4", "a"}, "++++-", "crowded 1"},
	} {
		t.Run(name, func(t *testing.T) {
			addrs := map[string]string{
				"a": "192.0.2.1", "b": "192.0.2.2", "c": "192.0.2.3", "d": "192.0.2.4", "e": "192.0.2.5",
				"4": "::ffff:192.0.2.1", "6": "2001:db8::1", "7": "2001:db8::2",
			}
			g := NewGate()
			g.maxPending = 4
			d := newDoor(t, g)
			var conns []*fakeConn
			for _, from := range tt.arrive {
				c, _, admitted := d.arrive(addrs[from])
				if admitted == nil {
					c.Close() // as Accept does
				}
				conns = append(conns, c)
			}
			open := ""
			for _, c := range conns {
				if c.closed {
					open += "-"
				} else {
					open += "+"
				}
			}
			if diff := cmp.Diff(tt.open, open); diff != "" {
				t.Errorf("of %v are open (-want +got):\n%s", tt.arrive, diff)
			}
			d.wantEnded(tt.refusals)
		})
	}
}

func TestAPlaceIsGivenBack(t *testing.T) {
	for name, leave := range map[string]func(net.Conn){
		"by who authenticates": Admit,
		"by who goes":          func(c net.Conn) { c.Close() },
		"once":                 func(c net.Conn) { Admit(c); Admit(c); c.Close(); c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			g := NewGate()
			g.maxPending = 1
			d := newDoor(t, g)
			for range 3 {
				_, _, c := d.arrive("192.0.2.1")
				if c == nil {
					t.Fatal("a connection was refused though the one before it has left the gate")
				}
				if _, _, more := d.arrive("192.0.2.1"); more != nil {
					t.Error("the gate holds one, and lets in a second")
				}
				leave(c)
			}
			if g.waiting != 0 || len(g.crowds) != 0 || d.counted("iotdm_hub_unauthenticated_connections")[""] != 0 {
				t.Errorf("%d wait in %d crowds in the end", g.waiting, len(g.crowds))
			}
		})
	}
}

func TestFilesAreKeptForTheStore(t *testing.T) {
	g := NewGate()
	g.limit(12) // three of them for the store
	d := newDoor(t, g)
	var open []net.Conn
	for range 9 {
		_, _, c := d.arrive("192.0.2.1")
		if c == nil {
			t.Fatalf("refused behind %d", len(open))
		}
		Admit(c)
		open = append(open, c)
	}
	if _, _, c := d.arrive("192.0.2.1"); c != nil {
		t.Error("the files of the store are given to a tenth connection")
	}
	d.wantEnded("files 1")
	open[4].Close()
	if _, _, c := d.arrive("192.0.2.1"); c == nil {
		t.Error("refused though one has gone")
	}
	// It waits, and has to make room for another address.
	if _, _, c := d.arrive("192.0.2.2"); c == nil {
		t.Error("refused though another address has one that waits")
	}
	for n, want := range map[int]int{0: 0, 256: 192, 1024: 768, 1 << 20: 1<<20 - maxReserve} {
		if g.limit(n); g.maxOpen != want {
			t.Errorf("of %d files %d are for connections, want %d", n, g.maxOpen, want)
		}
	}
}

func TestWhatIsSentBeforeAuthenticationIsBounded(t *testing.T) {
	g := NewGate()
	d := newDoor(t, g)
	chunk := make([]byte, 1<<20)
	// send has a peer send n bytes, and returns why the hub read no more.
	send := func(peer, c net.Conn, n int) error {
		go func() {
			for n > 0 {
				m, err := peer.Write(chunk[:min(n, len(chunk))])
				if n -= m; err != nil {
					return
				}
			}
		}()
		_, err := io.CopyN(io.Discard, c, int64(n))
		return err
	}
	for range 100 {
		_, peer, c := d.arrive("192.0.2.1")
		if err := send(peer, c, freeBytes); err != nil || g.borrowed != 0 {
			t.Fatalf("%d bytes: %v; %d are borrowed", freeBytes, err, g.borrowed)
		}
	}
	_, peer1, c1 := d.arrive("192.0.2.1")
	if err := send(peer1, c1, freeBytes+sharedBytes-1000); err != nil || g.borrowed != sharedBytes-1000 {
		t.Fatalf("almost all: %v; %d are borrowed", err, g.borrowed)
	}
	_, peer2, c2 := d.arrive("192.0.2.2")
	if err := send(peer2, c2, freeBytes+100<<10); !errors.Is(err, errGreedy) {
		t.Errorf("more than there are: %v, want %v", err, errGreedy)
	}
	c2.Close()
	d.wantEnded("bytes 1")
	Admit(c1)
	if g.borrowed != 0 {
		t.Errorf("%d are borrowed by one that has authenticated and one that was closed", g.borrowed)
	}
	if err := send(peer1, c1, freeBytes+sharedBytes); err != nil || g.borrowed != 0 {
		t.Errorf("of one that has authenticated: %v", err)
	}
}

// Whatever deadlines a server sets, those of the gate hold until Admit, and the
// server's from then on.
func TestDeadlinesUntilAdmit(t *testing.T) {
	none := time.Duration(0)
	for name, tt := range map[string]struct {
		set   time.Duration // from the arrival
		admit bool
		want  time.Duration
	}{
		"none, and it stays unknown":      {none, false, AuthTimeout},
		"a late one, and it does":         {time.Hour, false, AuthTimeout},
		"an early one, and it does":       {time.Second, false, time.Second},
		"a late one, and it is let in":    {time.Hour, true, time.Hour},
		"an early one, and it is let in":  {time.Second, true, time.Second},
		"none, and it is let in for good": {none, true, 24 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDoor(t, NewGate())
				_, peer, c := d.arrive("192.0.2.1")
				start := time.Now()
				deadline := time.Time{}
				if tt.set != none {
					deadline = start.Add(tt.set)
				}
				if err := c.SetDeadline(deadline); err != nil {
					t.Fatal(err)
				}
				if tt.admit {
					Admit(c)
				}
				time.AfterFunc(24*time.Hour, func() { peer.Close() })
				_, err := c.Read(make([]byte, 1))
				if took := time.Since(start); took != tt.want || tt.want < 24*time.Hour && !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("Read ended after %v with %v, want %v", took, err, tt.want)
				}
				if tt.want == AuthTimeout {
					d.wantEnded("timeout 1")
				} else {
					d.wantEnded("")
				}
				time.Sleep(24 * time.Hour) // in the bubble
			})
		})
	}
}

// A wrapped connection is found, and others are left alone.
func TestAdmitFindsTheConnection(t *testing.T) {
	d := newDoor(t, NewGate())
	_, _, c := d.arrive("192.0.2.1")
	Admit(over{over{c}})
	if d.gate.waiting != 0 {
		t.Error("it still waits")
	}
	Admit(nil)
	Admit(over{})
	a, _ := net.Pipe()
	defer a.Close()
	Admit(a)
}

type over struct{ net.Conn }

func (o over) NetConn() net.Conn { return o.Conn }

func TestAcceptTurnsAway(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	g := NewGate()
	g.maxPending = 1
	door := g.Listen(l, "test")
	dial := func() net.Conn {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	first, second := dial(), dial()
	accepted, err := door.Accept()
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() {
		_, err := door.Accept() // turns the second away, and waits for a third
		ended <- err
	}()
	if n, err := second.Read(make([]byte, 1)); err == nil {
		t.Errorf("the second got %d bytes", n)
	}
	if _, err := accepted.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	b := make([]byte, 1)
	if _, err := io.ReadFull(first, b); err != nil || !bytes.Equal(b, []byte("x")) {
		t.Errorf("the first got %q, %v", b, err)
	}
	l.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept: %v, want %v", err, net.ErrClosed)
	}
}
