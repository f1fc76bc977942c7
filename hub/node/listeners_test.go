package node

import (
	"net"
	"sync/atomic"
	"testing"
)

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
