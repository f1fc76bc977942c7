package rest

import (
	"net"
	"net/http"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/iotdm/iotdm/hub/internal/serve"
)

// metrics are what an operator watches of the door.
type metrics struct {
	answered    *prometheus.CounterVec // requests, by HTTP status
	connections *serve.Connections

	mu sync.Mutex // guards what follows
	in map[net.Conn]http.ConnState
}

// states are the words for those of net/http: a request is under way while a
// connection is active, and from the first byte of the first request on.
var states = map[http.ConnState]string{http.StateNew: "opening", http.StateActive: "active", http.StateIdle: "idle"}

// Why a connection was refused or ended. It is refused if no request came: the
// handshake failed, or there was none in time.
const (
	whyNoRequest = "no_request"
	whyClosed    = "closed"
	whyWebSocket = "websocket" // it goes on there
)

func newMetrics() *metrics {
	m := &metrics{
		answered: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "iotdm_hub_rest_requests_total", Help: "REST requests answered, by HTTP status.",
		}, []string{"status"}),
		connections: serve.NewConnections("https", []string{"opening", "active", "idle"}, []string{whyNoRequest}, []string{whyClosed, whyWebSocket}),
		in:          make(map[net.Conn]http.ConnState),
	}
	m.answered.WithLabelValues("200")
	return m
}

// Metrics returns what is counted, to be registered.
func (d *Door) Metrics() []prometheus.Collector {
	return append([]prometheus.Collector{d.metrics.answered}, d.metrics.connections.Metrics()...)
}

// closeNew closes the connections that no request has come on.
func (m *metrics) closeNew() {
	var list []net.Conn
	m.mu.Lock()
	for nc, state := range m.in {
		if state == http.StateNew {
			list = append(list, nc)
		}
	}
	m.mu.Unlock()
	for _, nc := range list {
		nc.Close()
	}
}

// moved is the ConnState of the server.
func (m *metrics) moved(nc net.Conn, to http.ConnState) {
	m.mu.Lock()
	from, known := m.in[nc]
	word, stays := states[to]
	if stays {
		m.in[nc] = to
	} else {
		delete(m.in, nc)
	}
	m.mu.Unlock()
	if known {
		m.connections.In(states[from]).Dec()
	}
	switch {
	case stays:
		m.connections.In(word).Inc()
	case to == http.StateHijacked:
		m.connections.Closed(whyWebSocket)
	case from == http.StateNew:
		m.connections.Refused(whyNoRequest)
	default:
		m.connections.Closed(whyClosed)
	}
}
