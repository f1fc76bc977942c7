package amqp

import (
	"errors"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/amqp/engine"
	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
	"github.com/iotdm/iotdm/hub/internal/serve"
	"github.com/iotdm/iotdm/hub/provisioning"
)

// The states of a connection.
const (
	stateOpening = "opening" // until the peer has shown who it is
	stateOpen    = "open"
)

// Why a connection was refused, or ended: words of the metrics.
const (
	whyTLS          = "tls"          // the handshake failed: it is no AMQP client, or does not trust the hub
	whyTimeout      = "timeout"      // it did not show in time who it is
	whyUnauthorized = "unauthorized" // who it is, or its credential
	whyClosed       = "closed"       // by the peer, in order
	whyExpired      = "expired"
	whyRevoked      = "revoked"
	whyTakenOver    = "taken_over"
	whySilent       = "silent"
	whySlowReader   = "slow_reader"
	whyLost         = "lost"        // without a close
	whyViolation    = "violation"   // of AMQP, or of what IoT Hub allows
	whyUnavailable  = "unavailable" // of the hub's own making, such as a full disk
	whyClosing      = "closing"     // the hub is
	whyReset        = "reset"       // the hub was
)

// A connection that was never known may end for any reason, too: so one list
// serves both.
var reasons = []string{
	whyTLS, whyTimeout, whyUnauthorized, whyClosed, whyExpired, whyRevoked, whyTakenOver, whySilent, whySlowReader, whyLost, whyViolation, whyUnavailable, whyClosing, whyReset,
}

// metrics are what an operator watches of the door.
type metrics struct {
	tls, plain, webSocket *serve.Connections
	queued                atomic.Int64 // bytes that wait to be written, to all peers
	all                   []prometheus.Collector
}

func newMetrics() *metrics {
	m := new(metrics)
	for door, into := range map[string]**serve.Connections{"amqps": &m.tls, "amqp": &m.plain, "amqp-websocket": &m.webSocket} {
		*into = serve.NewConnections(door, []string{stateOpening, stateOpen}, reasons, reasons)
		m.all = append(m.all, (*into).Metrics()...)
	}
	m.all = append(m.all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "iotdm_hub_amqp_outgoing_bytes", Help: "Bytes that wait to be written to AMQP connections.",
	}, func() float64 { return float64(m.queued.Load()) }))
	return m
}

// Metrics returns what is counted, to be registered.
func (d *Door) Metrics() []prometheus.Collector { return d.metrics.all }

// A fault is an error that says itself what it is in the metrics.
type fault struct {
	error
	word string
}

func (f fault) Unwrap() error { return f.error }

// wordOf says in a word of the metrics why a connection ended.
func wordOf(err error) string {
	for _, known := range []struct {
		error
		word string
	}{
		{engine.ErrClosed, whyClosed}, {engine.ErrLost, whyLost}, {engine.ErrSilent, whySilent}, {engine.ErrSlowReader, whySlowReader},
		{errUnknown, whyTimeout}, {errDetached, whyClosed}, {hub.ErrUnauthorizedAccess, whyUnauthorized},
		{hub.ErrExpired, whyExpired}, {hub.ErrRevoked, whyRevoked}, {hub.ErrTakenOver, whyTakenOver}, {hub.ErrClosing, whyClosing},
		{hub.ErrDropped, whyUnavailable}, {hub.ErrReset, whyReset},
	} {
		if errors.Is(err, known.error) {
			return known.word
		}
	}
	var f fault
	var rules *hub.Error
	var provision *provisioning.Error
	var sent *wire.Error
	switch {
	case err == nil:
		return whyClosed
	case errors.As(err, &f):
		return f.word
	case errors.As(err, &rules) && rules.Status >= 500:
		return whyUnavailable
	case errors.As(err, &provision) && provision.HTTPStatus() >= 500:
		return whyUnavailable
	case errors.As(err, &provision):
		return whyUnauthorized
	case errors.As(err, &sent) && sent.Condition == condUnauthorized:
		return whyUnauthorized
	case errors.As(err, &sent) && sent.Condition == condStolen:
		return whyTakenOver
	case errors.As(err, &sent) && sent.Condition == condForced:
		return whyClosing
	default:
		return whyViolation
	}
}
