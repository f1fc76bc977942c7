package node

import (
	"net"
	"net/http"
	"strings"

	"github.com/iotdm/iotdm/hub/internal/rest"
	"github.com/iotdm/iotdm/hub/internal/serve"
)

// serveAside answers what shares the listener with REST.
func (n *Node) serveAside(w http.ResponseWriter, r *http.Request) bool {
	return n.serveLocal(w, r) || n.serveWebSocket(w, r) || n.dps.Serve(w, r)
}

// serveLocal answers GET /health and GET /metrics to programs on the same
// machine, which need no credential, and reports whether it did. For everyone
// else they are not there.
func (n *Node) serveLocal(w http.ResponseWriter, r *http.Request) bool {
	if r.Method != http.MethodGet || !n.local(r) {
		return false
	}
	switch path := strings.Trim(r.URL.Path, "/"); {
	case strings.EqualFold(path, "health"):
		serve.Admit(rest.Conn(r))
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.Write([]byte(`{"status":"ok"}`))
	case strings.EqualFold(path, "metrics"):
		serve.Admit(rest.Conn(r))
		n.metrics.ServeHTTP(w, r)
	default:
		return false
	}
	return true
}

// local reports whether the request comes from this machine and was meant for
// the hub: a page in a browser can send requests here under another name.
func (n *Node) local(r *http.Request) bool {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil || !n.IsName(r.Host) {
		return false
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
