package node

import (
	"net"
	"net/netip"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// An addrListener is only its address.
type addrListener struct {
	net.Listener
	addr string
}

func (l addrListener) Addr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(l.addr))
}

func TestTheNameOfAHub(t *testing.T) {
	for _, tt := range []struct {
		name                string
		mqtts, https, amqps string
		hosts               []string
		want                string
		names               []string
	}{
		{"as usual", "127.0.0.1:8883", "127.0.0.1:443", "127.0.0.1:5671", nil, "localhost", nil},
		{"on IPv6's loopback", "[::1]:8883", "[::1]:443", "", nil, "localhost", nil},
		{"on all interfaces", "0.0.0.0:8883", "[::]:443", "", nil, "localhost", nil},
		{"beside another", "127.0.0.2:8883", "127.0.0.2:443", "127.0.0.2:5671", nil, "127.0.0.2", []string{"127.0.0.2"}},
		{"beside another, with AMQP elsewhere", "127.0.0.2:8883", "127.0.0.2:443", "127.0.0.1:5671", nil, "127.0.0.2", []string{"127.0.0.2"}},
		{"on an address of the network", "192.0.2.7:8883", "192.0.2.7:443", "", nil, "192.0.2.7", []string{"192.0.2.7"}},
		{"with a name", "192.0.2.7:8883", "192.0.2.7:443", "", []string{"hub.test", "other.test"}, "hub.test", []string{"hub.test", "other.test"}},
		{"with a name, beside another", "127.0.0.2:8883", "127.0.0.2:443", "", []string{"hub.test"}, "hub.test", []string{"hub.test", "127.0.0.2"}},
		{"with a wildcard first", "127.0.0.1:8883", "127.0.0.1:443", "", []string{"*.test", "hub.test"}, "hub.test", []string{"*.test", "hub.test"}},
		{"with a wildcard alone", "127.0.0.1:8883", "127.0.0.1:443", "", []string{"*.test"}, "localhost", []string{"*.test"}},
		{"without REST", "127.0.0.2:8883", "", "", nil, "127.0.0.2", []string{"127.0.0.2"}},
		{"without anything", "", "", "", nil, "localhost", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var l Listeners
			for door, addr := range map[*net.Listener]string{&l.MQTTS: tt.mqtts, &l.HTTPS: tt.https, &l.AMQPS: tt.amqps} {
				if addr != "" {
					*door = addrListener{addr: addr}
				}
			}
			if diff := cmp.Diff(tt.want, l.HostName(tt.hosts)); diff != "" {
				t.Errorf("HostName(%q) (-want +got):\n%s", tt.hosts, diff)
			}
			if diff := cmp.Diff(tt.names, l.Names(tt.hosts)); diff != "" {
				t.Errorf("Names(%q) (-want +got):\n%s", tt.hosts, diff)
			}
		})
	}
	six := Listeners{HTTPS: addrListener{addr: "[fd00::7]:443"}}
	if got := six.Info(six.HostName(nil)).HostName; got != "[fd00::7]" {
		t.Errorf("an address of IPv6 in connection strings is %q", got)
	}
}

// A lateListener learns late, with the second Close, that it is closed.
type lateListener struct {
	net.Listener
	accepts, closed chan struct{}
	closes          atomic.Int32
}

func (l *lateListener) Accept() (net.Conn, error) {
	close(l.accepts)
	<-l.closed
	return nil, net.ErrClosed
}

func (l *lateListener) Close() error {
	switch l.closes.Add(1) {
	case 1:
		return l.Listener.Close()
	case 2:
		close(l.closed)
	}
	return net.ErrClosed
}

func TestShutdownWithListenersThatAreAboutToEnd(t *testing.T) {
	n, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	late := func() *lateListener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return &lateListener{Listener: l, accepts: make(chan struct{}), closed: make(chan struct{})}
	}
	mqtts, https, amqps, mqtt, amqp := late(), late(), late(), late(), late()
	failed := n.Serve(Listeners{MQTTS: mqtts, HTTPS: https, AMQPS: amqps, MQTT: mqtt, AMQP: amqp})
	for _, l := range []*lateListener{mqtts, https, amqps, mqtt, amqp} {
		<-l.accepts
	}
	if err := n.Shutdown(t.Context()); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	select {
	case err := <-failed:
		t.Errorf("serving failed: %v", err)
	default:
	}
}
