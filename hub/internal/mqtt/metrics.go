package mqtt

import (
	"errors"
	"sync/atomic"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/serve"
)

// The states of a connection.
const (
	stateOpening = "opening" // up to CONNACK
	stateOpen    = "open"
)

// Why a connection was refused, or ended: words of the metrics.
const (
	whyTLS          = "tls"          // the handshake failed: it is no MQTT client, or does not trust the hub
	whyTimeout      = "timeout"      // no CONNECT in time
	whyUnauthorized = "unauthorized" // who it is, or its credential
	whyDisconnected = "disconnected"
	whyExpired      = "expired"
	whyRevoked      = "revoked"
	whyTakenOver    = "taken_over"
	whySilent       = "silent"
	whySlowReader   = "slow_reader"
	whyLost         = "lost"        // without DISCONNECT
	whyViolation    = "violation"   // of MQTT, or of what IoT Hub allows
	whyUnavailable  = "unavailable" // of the hub's own making, such as a full disk
	whyClosing      = "closing"     // the hub is
	whyReset        = "reset"       // the hub was
)

var (
	refusals = []string{whyTLS, whyTimeout, whyUnauthorized, whyLost, whyViolation, whyUnavailable, whyClosing}
	ends     = []string{whyDisconnected, whyLost, whySilent, whyExpired, whyRevoked, whyTakenOver, whySlowReader, whyViolation, whyUnavailable, whyClosing, whyReset}
)

// metrics are what an operator watches of the door.
type metrics struct {
	tls, plain, webSocket *serve.Connections
	queued                atomic.Int64 // bytes that wait to be written, to all peers
	all                   []prometheus.Collector
}

func newMetrics() *metrics {
	m := new(metrics)
	for door, into := range map[string]**serve.Connections{"mqtts": &m.tls, "mqtt": &m.plain, "websocket": &m.webSocket} {
		*into = serve.NewConnections(door, []string{stateOpening, stateOpen}, refusals, ends)
		m.all = append(m.all, (*into).Metrics()...)
	}
	m.all = append(m.all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "iotdm_hub_outgoing_bytes", Help: "Bytes that wait to be written to MQTT connections.",
	}, func() float64 { return float64(m.queued.Load()) }))
	return m
}

// Metrics returns what is counted, to be registered.
func (d *Door) Metrics() []prometheus.Collector { return d.metrics.all }

// A fault is an error that says itself what it is in the metrics: the network's,
// or the hub's own, and not the peer's.
type fault struct {
	error
	word string
}

func (f fault) Unwrap() error { return f.error }

// why says in a word of the metrics why a connection ended.
func why(err error) string {
	for _, known := range []struct {
		error
		word string
	}{
		{errDisconnect, whyDisconnected}, {errLost, whyLost}, {errSilent, whySilent}, {errSlowReader, whySlowReader}, {errNoConnect, whyTimeout},
		{hub.ErrExpired, whyExpired}, {hub.ErrRevoked, whyRevoked}, {hub.ErrTakenOver, whyTakenOver}, {hub.ErrClosing, whyClosing},
		{hub.ErrDropped, whyUnavailable}, {hub.ErrReset, whyReset},
	} {
		if errors.Is(err, known.error) {
			return known.word
		}
	}
	var f fault
	var refused *refusal
	var rules *hub.Error
	switch {
	case errors.As(err, &f):
		return f.word
	case errors.As(err, &refused) && refused.code == packets.ErrRefusedNotAuthorised:
		return whyUnauthorized
	case errors.As(err, &refused) && refused.code == packets.ErrRefusedServerUnavailable, errors.As(err, &rules) && rules.Status >= 500:
		return whyUnavailable
	default:
		return whyViolation
	}
}
