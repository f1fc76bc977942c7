package hub

import (
	"context"
	"errors"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/iotdm/iotdm/hub/internal/words"
)

// metrics are what an operator watches of the rules.
type metrics struct {
	methods   *prometheus.CounterVec // by HTTP status
	twins     *prometheus.CounterVec // by side
	connected prometheus.GaugeFunc
}

func newMetrics(s *Server) *metrics {
	return &metrics{
		methods: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "iotdm_hub_method_calls_total", Help: "Direct method calls ended, by the HTTP status of the service's API.",
		}, []string{"status"}),
		twins: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "iotdm_hub_twin_writes_total", Help: "Twin changes stored, by the side that made them.",
		}, []string{"side"}),
		connected: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "iotdm_hub_connected_devices", Help: "Devices, not modules, that are connected.",
		}, func() float64 { return float64(s.ConnectedDevices()) }),
	}
}

// Metrics returns what is counted, to be registered.
func (s *Server) Metrics() []prometheus.Collector {
	return []prometheus.Collector{s.metrics.methods, s.metrics.twins, s.metrics.connected}
}

// methodCall counts a direct method that ended with err, or with an answer.
func (m *metrics) methodCall(err error) {
	status := 200
	switch {
	case errors.Is(err, context.Canceled):
		status = words.StatusClientGone
	case err != nil:
		status = RefusalOf(err).Status
	}
	m.methods.WithLabelValues(strconv.Itoa(status)).Inc()
}

func (m *metrics) twinWrite(side string) { m.twins.WithLabelValues(side).Inc() }
