package hub

import (
	"context"
	"errors"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/iotdm/iotdm/hub/internal/words"
)

// metrics are what an operator watches of the rules. Whoever owns a state
// counts it as it changes, so that nothing is looked through when they are
// read. Labels have few values, which are known before.
type metrics struct {
	methods *prometheus.CounterVec // by HTTP status
	calling prometheus.Gauge
	twins   *prometheus.CounterVec // by side
	events  *prometheus.CounterVec // by source
	sent    prometheus.Counter
	settled *prometheus.CounterVec // by outcome

	all []prometheus.Collector
}

func newMetrics(s *Server) *metrics {
	m := &metrics{
		methods: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "iotdm_hub_method_calls_total", Help: "Direct method calls ended, by the HTTP status of the service's API.",
		}, []string{"status"}),
		calling: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "iotdm_hub_method_calls", Help: "Direct method calls that wait for a device now.",
		}),
		twins: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "iotdm_hub_twin_writes_total", Help: "Twin changes stored, by the side that made them.",
		}, []string{"side"}),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "iotdm_hub_events_total", Help: "Events given to the event log, by message source.",
		}, []string{"source"}),
		sent: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "iotdm_hub_c2d_sent_total", Help: "Cloud-to-device messages put into a queue.",
		}),
		settled: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "iotdm_hub_c2d_settled_total", Help: "Cloud-to-device messages by what came of them; those that were abandoned wait again.",
		}, []string{"outcome"}),
	}
	m.methods.WithLabelValues("200")
	for _, side := range []string{"service", "device", "configuration"} {
		m.twins.WithLabelValues(side)
	}
	for _, source := range eventSources {
		m.events.WithLabelValues(string(source))
	}
	for _, o := range []outcome{completed, expired, deliveryCountExceeded, rejected, purged, abandoned} {
		m.settled.WithLabelValues(o.label())
	}
	gauge := func(name, help string, value func() int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(value()) })
	}
	m.all = []prometheus.Collector{
		m.methods, m.calling, m.twins, m.events, m.sent, m.settled,
		gauge("iotdm_hub_connected_devices", "Devices, not modules, that are connected.", s.linkedDevices),
		gauge("iotdm_hub_connected_modules", "Modules that are connected.", s.linkedModules),
		gauge("iotdm_hub_event_readers", "Readers of a partition of the built-in endpoint that are attached.", s.Readers),
		gauge("iotdm_hub_c2d_queued", "Cloud-to-device messages that wait, those in hand included.", s.queues.queued),
		gauge("iotdm_hub_c2d_in_hand", "Cloud-to-device messages that a device has received and not settled.", s.queues.inHand),
		gauge("iotdm_hub_c2d_queues", "Devices for which cloud-to-device messages wait.", s.queues.depth),
	}
	return m
}

// Metrics returns what is counted, to be registered.
func (s *Server) Metrics() []prometheus.Collector { return s.metrics.all }

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

func (m *metrics) event(source EventSource) { m.events.WithLabelValues(string(source)).Inc() }

func (m *metrics) messages(n int, o outcome) { m.settled.WithLabelValues(o.label()).Add(float64(n)) }

// label is the outcome in a metric.
func (o outcome) label() string {
	if o == abandoned {
		return "Abandoned"
	}
	return string(o)
}
