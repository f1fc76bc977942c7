package localhub

import (
	"net"
	"net/netip"
	"strings"

	"github.com/iotdm/iotdm/hub/node"
)

// The ports that the official SDKs have built in.
const (
	MQTTSPort = "8883"
	HTTPSPort = "443"
	AMQPSPort = "5671"
)

// amqpPort is where clients of Event Hubs look for an emulator.
const amqpPort = "5672"

// HostWithPort is a HostName for a hub that listens on addr: the port is left
// out where the SDKs know it.
func HostWithPort(host, addr, known string) string {
	host = strings.Trim(host, "[]")
	if _, port, err := net.SplitHostPort(addr); err == nil && port != known {
		return net.JoinHostPort(host, port)
	}
	if strings.Contains(host, ":") {
		return "[" + host + "]" // in a URL
	}
	return host
}

// NamesThisMachine reports whether host is a name under which the local hub
// can only be meant: its own, or one that every machine uses for itself.
func NamesThisMachine(host string, info node.Info) bool {
	own, _ := SplitPort(info.HostName)
	if strings.EqualFold(host, own) || strings.EqualFold(host, "localhost") || strings.HasSuffix(strings.ToLower(host), ".localhost") {
		return true
	}
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && addr.IsLoopback()
}

// SplitPort takes the port from a host name; it is "" where there is none.
func SplitPort(host string) (name, port string) {
	if name, port, err := net.SplitHostPort(host); err == nil {
		return name, port
	}
	return host, ""
}

// DialAddr turns an address that is listened on into one to dial.
func DialAddr(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return ""
	}
	if addr, err := netip.ParseAddr(host); host == "" || err == nil && addr.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}
