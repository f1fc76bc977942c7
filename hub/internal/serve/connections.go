package serve

import "github.com/prometheus/client_golang/prometheus"

// Connections count the connections of one door, or of one way into a door, for
// an operator. States and reasons are words of the door's own, each from a list
// that does not grow: what a peer sends never becomes a label. A series is there
// from the beginning, so that its rate is known from the first event on.
type Connections struct {
	Door string // its name in the metrics

	state           map[string]prometheus.Gauge
	refused, closed map[string]prometheus.Counter
	collectors      []prometheus.Collector
}

// NewConnections returns counters for a door. Refused are why a connection did
// not come about, closed why one ended that did.
func NewConnections(door string, states, refused, closed []string) *Connections {
	labels := prometheus.Labels{"door": door}
	state := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "iotdm_hub_connections", Help: "Connections now, by door and state.", ConstLabels: labels,
	}, []string{"state"})
	refusals := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "iotdm_hub_connections_refused_total", Help: "Connections that were not accepted, by door and reason.", ConstLabels: labels,
	}, []string{"reason"})
	ends := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "iotdm_hub_connections_closed_total", Help: "Connections that were accepted and have ended, by door and reason.", ConstLabels: labels,
	}, []string{"reason"})
	c := &Connections{Door: door, state: make(map[string]prometheus.Gauge), collectors: []prometheus.Collector{state, refusals, ends}}
	for _, s := range states {
		c.state[s] = state.WithLabelValues(s)
	}
	c.refused, c.closed = counters(refusals, refused), counters(ends, closed)
	return c
}

func counters(vec *prometheus.CounterVec, values []string) map[string]prometheus.Counter {
	all := make(map[string]prometheus.Counter, len(values))
	for _, v := range values {
		all[v] = vec.WithLabelValues(v)
	}
	return all
}

// Metrics returns what is counted, to be registered.
func (c *Connections) Metrics() []prometheus.Collector { return c.collectors }

// In returns the gauge of a state.
func (c *Connections) In(state string) prometheus.Gauge { return c.state[state] }

// Refused counts a connection that was not accepted.
func (c *Connections) Refused(reason string) { c.refused[reason].Inc() }

// Closed counts the end of a connection that was accepted.
func (c *Connections) Closed(reason string) { c.closed[reason].Inc() }
