package hub

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics are what an operator watches. Each Server has its own.
type metrics struct {
	rest       *prometheus.CounterVec // by HTTP status
	methods    *prometheus.CounterVec // by HTTP status
	twins      *prometheus.CounterVec // by side: service or device
	configured prometheus.Counter
	handler    http.Handler
}

func newMetrics(s *Server) *metrics {
	counter := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "iotdm", Subsystem: "hub", Name: name, Help: help}, []string{label})
	}
	m := &metrics{
		rest:    counter("rest_requests_total", "REST requests answered, by HTTP status.", "status"),
		methods: counter("method_calls_total", "Direct method calls ended, by the HTTP status of the service's API.", "status"),
		twins:   counter("twin_writes_total", "Twin changes stored, by the side that made them.", "side"),
	}
	m.configured = prometheus.NewCounter(prometheus.CounterOpts{
		Namespace: "iotdm", Subsystem: "hub", Name: "twins_configured_total", Help: "Twins compared with the automatic configurations.",
	})
	connected := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "iotdm", Subsystem: "hub", Name: "connected_devices", Help: "Devices, not modules, that are connected.",
	}, func() float64 { return float64(s.ConnectedDevices()) })
	registry := prometheus.NewRegistry()
	registry.MustRegister(m.rest, m.methods, m.twins, m.configured, connected, collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.handler = promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
	return m
}

func (m *metrics) restRequest(status int) { m.rest.WithLabelValues(strconv.Itoa(status)).Inc() }

// methodCall counts a direct method that ended with err, or with an answer.
func (m *metrics) methodCall(err error) {
	status := http.StatusOK
	switch {
	case errors.Is(err, context.Canceled):
		status = statusClientGone
	case err != nil:
		status = refusalOf(err).Status
	}
	m.methods.WithLabelValues(strconv.Itoa(status)).Inc()
}

func (m *metrics) twinWrite(side string) { m.twins.WithLabelValues(side).Inc() }

// twinConfigured counts a twin that was compared with the configurations,
// whether that changed it or not.
func (m *metrics) twinConfigured() { m.configured.Inc() }

// serveLocal answers GET /health and GET /metrics to programs on the same
// machine, which need no credential, and reports whether it did. For everyone
// else they are not there.
func (s *Server) serveLocal(w http.ResponseWriter, r *http.Request, segments []string) bool {
	if len(segments) != 1 || r.Method != http.MethodGet || !s.local(r) {
		return false
	}
	switch {
	case strings.EqualFold(segments[0], "health"):
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.Write([]byte(`{"status":"ok"}`))
	case strings.EqualFold(segments[0], "metrics"):
		s.metrics.handler.ServeHTTP(w, r)
	default:
		return false
	}
	return true
}

// local reports whether the request comes from this machine and was meant for
// the hub: a page in a browser can send requests here under another name.
func (s *Server) local(r *http.Request) bool {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil || !s.names.contains(r.Host) {
		return false
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
