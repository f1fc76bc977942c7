package node

import (
	"errors"
	"net"
)

// Listeners are where a node serves. Nil ones are left out.
type Listeners struct {
	MQTTS net.Listener // MQTT over TLS
	HTTPS net.Listener // REST, and MQTT and AMQP over WebSocket, over TLS
	AMQPS net.Listener // AMQP over TLS
	MQTT  net.Listener // MQTT without TLS
	AMQP  net.Listener // AMQP without TLS
}

// Close closes the listeners of a node that was not made.
func (l Listeners) Close() {
	for _, l := range []net.Listener{l.MQTTS, l.HTTPS, l.AMQPS, l.MQTT, l.AMQP} {
		if l != nil {
			l.Close()
		}
	}
}

// Info returns what there is to publish of the listeners of a hub that is
// called host in connection strings.
func (l Listeners) Info(host string) Info {
	addr := func(l net.Listener) string {
		if l == nil {
			return ""
		}
		return l.Addr().String()
	}
	return Info{
		HostName: host, MQTTSAddr: addr(l.MQTTS), HTTPSAddr: addr(l.HTTPS), AMQPSAddr: addr(l.AMQPS),
		MQTTAddr: addr(l.MQTT), AMQPAddr: addr(l.AMQP),
	}
}

// Serve begins to serve on the listeners, until the node closes. It owns them.
// The channel delivers why one of them failed before that.
func (n *Node) Serve(on Listeners) (failed <-chan error) {
	doors := []struct {
		net.Listener
		serve func(net.Listener) error
	}{
		{on.MQTTS, n.ServeMQTTS},
		{on.HTTPS, n.ServeHTTPS},
		{on.AMQPS, n.ServeAMQPS},
		{on.MQTT, n.ServeMQTT},
		{on.AMQP, n.ServeAMQP},
	}
	errs := make(chan error, len(doors))
	for _, d := range doors {
		if d.Listener == nil {
			continue
		}
		go func() {
			if err := d.serve(d.Listener); !errors.Is(err, ErrClosed) {
				errs <- err
			}
		}()
	}
	return errs
}
