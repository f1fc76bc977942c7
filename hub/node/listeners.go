package node

import (
	"errors"
	"net"
)

// Listeners are where a node serves. Nil ones are left out.
type Listeners struct {
	MQTTS net.Listener // MQTT over TLS
	HTTPS net.Listener // REST, and MQTT over WebSocket, over TLS
	MQTT  net.Listener // MQTT without TLS
}

// Close closes the listeners of a node that was not made.
func (l Listeners) Close() {
	for _, l := range []net.Listener{l.MQTTS, l.HTTPS, l.MQTT} {
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
	return Info{HostName: host, MQTTSAddr: addr(l.MQTTS), HTTPSAddr: addr(l.HTTPS), MQTTAddr: addr(l.MQTT)}
}

// Serve begins to serve on the listeners, until the node closes. It owns them.
// The channel delivers why one of them failed before that.
func (n *Node) Serve(on Listeners) (failed <-chan error) {
	errs := make(chan error, 3)
	serve := func(serve func(net.Listener) error, l net.Listener) {
		if l == nil {
			return
		}
		go func() {
			if err := serve(l); !errors.Is(err, ErrClosed) {
				errs <- err
			}
		}()
	}
	serve(n.ServeMQTTS, on.MQTTS)
	serve(n.ServeHTTPS, on.HTTPS)
	serve(n.ServeMQTT, on.MQTT)
	return errs
}
