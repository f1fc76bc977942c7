package mqttdevice

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"runtime"
	"strings"
)

// hostOnly returns host without a port.
func hostOnly(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		return h
	}
	return strings.Trim(host, "[]")
}

// peerHost is the host to dial and to verify: behind a gateway, the gateway.
func peerHost(opt Options) string {
	if opt.ConnectionString.GatewayHostName != "" {
		return opt.ConnectionString.GatewayHostName
	}
	return opt.ConnectionString.HostName
}

// dialAddr is what to dial by transport t, TCP or WebSocket.
func dialAddr(opt Options, t Transport) string {
	if addr := givenAddr(opt, t); addr != "" {
		return addr
	}
	return namedAddr(opt, t)
}

// namedAddr is the address that the hub's name stands for by transport t. A port in the name is that of
// the one transport, or with Auto that of TCP.
func namedAddr(opt Options, t Transport) string {
	host := peerHost(opt)
	if _, _, err := net.SplitHostPort(host); err == nil && (opt.Transport != Auto || t == TCP) {
		return host
	}
	return net.JoinHostPort(hostOnly(host), t.port())
}

// givenAddr is the address that the options name for transport t, or empty.
func givenAddr(opt Options, t Transport) string {
	if opt.Transport == Auto && t == WebSocket {
		return opt.WebSocketAddr
	}
	return opt.Addr
}

func tlsConfig(opt Options) *tls.Config {
	config := &tls.Config{}
	if opt.TLS != nil {
		config = opt.TLS.Clone()
	}
	if config.ServerName == "" {
		config.ServerName = hostOnly(peerHost(opt))
	}
	config.MinVersion = max(config.MinVersion, tls.VersionTLS12)
	if opt.ConnectionString.X509 {
		// Azure may ask for the certificate in a second handshake, once.
		config.Renegotiation = tls.RenegotiateOnceAsClient
	}
	return config
}

// userName is the MQTT user name. Host and ids go in as they are, the query is percent-encoded.
func userName(host, id, model string) string {
	agent := fmt.Sprintf("iotdm (%s; %s/%s)", runtime.Version(), runtime.GOOS, runtime.GOARCH)
	name := host + "/" + id + "/?api-version=2021-04-12&DeviceClientType=" + escape(agent)
	if model != "" {
		name += "&model-id=" + escape(model)
	}
	return name
}

// escape percent-encodes everything but letters, digits and -._~, as IoT Hub wants it in topics.
func escape(s string) string {
	return strings.ReplaceAll(url.QueryEscape(s), "+", "%20")
}
