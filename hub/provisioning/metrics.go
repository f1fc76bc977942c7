package provisioning

import (
	"errors"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/iotdm/iotdm/hub/internal/words"
)

// metrics are what an operator watches of the service.
type metrics struct {
	registrations *prometheus.CounterVec // by status
	refusals      *prometheus.CounterVec // by reason

	all []prometheus.Collector
}

func newMetrics(s *Service) *metrics {
	m := &metrics{
		registrations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "iotdm_hub_registrations_total", Help: "Requests of devices to register that were let in, by the status that they ended with.",
		}, []string{"status"}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "iotdm_hub_registration_refusals_total", Help: "Devices that the provisioning service did not let in, by reason.",
		}, []string{"reason"}),
	}
	for _, status := range []Status{Assigned, Failed, Disabled} {
		m.registrations.WithLabelValues(string(status))
	}
	for _, reason := range []string{"id_scope", "not_enrolled", "unauthorized", "internal"} {
		m.refusals.WithLabelValues(reason)
	}
	gauge := func(kind string, value func() int64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "iotdm_hub_enrollments", Help: "Enrollments of the provisioning service, by kind.",
			ConstLabels: prometheus.Labels{"kind": kind},
		}, func() float64 { return float64(value()) })
	}
	m.all = []prometheus.Collector{
		m.registrations, m.refusals,
		gauge("individual", s.individuals.Load), gauge("group", func() int64 { return int64(len(s.groups.all())) }),
	}
	return m
}

func (m *metrics) ended(status Status) { m.registrations.WithLabelValues(string(status)).Inc() }

// refused counts a peer that was not let in, unless err is nil.
func (m *metrics) refused(err error) {
	if err == nil {
		return
	}
	reason := "internal"
	if e, ok := errors.AsType[*Error](err); ok && e.reason != "" {
		reason = e.reason
	}
	m.refusals.WithLabelValues(reason).Inc()
}

// tell writes a line of the log about a registration: which enrollment it was by, and
// why it came out so.
func (s *Service) tell(msg string, p Peer, by attested, why string, at ...place) {
	attrs := []slog.Attr{
		slog.String(words.LogRegistration, p.ID), slog.String(words.LogEnrollment, by.ID()), slog.String(words.LogReason, why),
	}
	for _, place := range at {
		attrs = append(attrs, slog.String(words.LogID, place.String()))
	}
	s.often.Info(msg, append(attrs, slog.String(words.LogRemote, p.Remote))...)
}
