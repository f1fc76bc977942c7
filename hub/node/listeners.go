package node

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
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

// HostName returns the name for connection strings of a hub that listens here
// and has the names hosts: the first of them that is no wildcard, else the
// address it listens on where "localhost" does not lead to it, such as the
// 127.0.0.2 of a hub beside another, else "localhost".
func (l Listeners) HostName(hosts []string) string {
	for _, host := range hosts {
		if !strings.HasPrefix(host, "*.") {
			return host
		}
	}
	if list := l.addresses(); len(list) > 0 {
		return list[0]
	}
	return "localhost"
}

// addresses are those that the listeners for TLS have and "localhost" does not
// lead to.
func (l Listeners) addresses() []string {
	var list []string
	for _, door := range []net.Listener{l.MQTTS, l.HTTPS, l.AMQPS} {
		if door == nil {
			continue
		}
		addr, err := netip.ParseAddrPort(door.Addr().String())
		ip := addr.Addr().Unmap().WithZone("")
		if err != nil || ip.IsUnspecified() || ip == netip.AddrFrom4([4]byte{127, 0, 0, 1}) || ip == netip.IPv6Loopback() {
			continue
		}
		if text := ip.String(); !slices.Contains(list, text) {
			list = append(list, text)
		}
	}
	return list
}

// Names returns what Options.HostNames should be for a hub that listens here and
// has the names hosts: these, and the addresses that it listens on and localhost
// does not lead to. One that is not of the loopback is left out where the hub has
// a name: its CA would be made anew for it, and clients trust the old one.
func (l Listeners) Names(hosts []string) []string {
	names := slices.Clone(hosts)
	for _, text := range l.addresses() {
		if ip := netip.MustParseAddr(text); ip.IsLoopback() || text == l.HostName(hosts) {
			names = append(names, text)
		}
	}
	return names
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
	if ip, err := netip.ParseAddr(host); err == nil && ip.Is6() {
		host = "[" + host + "]" // in a URL
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
