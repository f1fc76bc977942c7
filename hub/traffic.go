package hub

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// Traffic is what goes through the hub: how much since it was started, which two readings make into a rate, and
// who is connected now.
type Traffic struct {
	ConnectedDevices int    `json:"connectedDeviceCount"`
	ConnectedModules int    `json:"connectedModuleCount"`
	Telemetry        uint64 `json:"telemetry"`      // messages of devices that were stored
	MethodCalls      uint64 `json:"methodCalls"`    // direct methods that ended
	MethodFailures   uint64 `json:"methodFailures"` // of these, without an answer of the device
	TwinWrites       uint64 `json:"twinWrites"`
	MessagesSent     uint64 `json:"messagesSent"` // to devices, put into a queue
}

// trafficVerb asks a node what has gone through it.
const trafficVerb = "traffic"

// A heardTraffic is what other nodes told last, by their epochs.
type heardTraffic struct {
	mu sync.Mutex
	of map[uint64]Traffic
}

// hear takes down what a node tells, and returns that or, if it comes behind a later
// answer, the later one.
func (h *heardTraffic) hear(epoch uint64, t Traffic) Traffic {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.of == nil {
		h.of = make(map[uint64]Traffic)
	}
	t.raise(h.of[epoch])
	h.of[epoch] = t
	return t
}

// last returns what a node told last.
func (h *heardTraffic) last(epoch uint64) Traffic {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.of[epoch]
}

// forget forgets nodes that are gone.
func (h *heardTraffic) forget(gone func(epoch uint64) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	maps.DeleteFunc(h.of, func(epoch uint64, _ Traffic) bool { return gone(epoch) })
}

// Traffic returns the sums of what the metrics count, over all nodes of the hub. One
// that does not tell in time counts with what it told last, so that two readings make
// no rate of what went through it long ago. When one has gone, they are lower than
// before.
func (s *Server) Traffic(ctx context.Context) Traffic {
	sum := s.traffic()
	askAll(ctx, s, trafficVerb, struct{}{}, func(node uint64, t Traffic, err error) {
		if err == nil {
			t = s.heardTraffic.hear(node, t)
		} else {
			t = s.heardTraffic.last(node)
		}
		sum.add(t)
	})
	s.heardTraffic.forget(func(epoch uint64) bool {
		return !slices.ContainsFunc(s.Nodes(), func(n ClusterNode) bool { return n.Epoch == epoch })
	})
	sum.ConnectedDevices, sum.ConnectedModules = s.ConnectedDevices(), s.connectedModules()
	return sum
}

func (t *Traffic) add(other Traffic) {
	t.Telemetry += other.Telemetry
	t.MethodCalls += other.MethodCalls
	t.MethodFailures += other.MethodFailures
	t.TwinWrites += other.TwinWrites
	t.MessagesSent += other.MessagesSent
}

// raise leaves no number below that of an earlier reading.
func (t *Traffic) raise(earlier Traffic) {
	t.Telemetry = max(t.Telemetry, earlier.Telemetry)
	t.MethodCalls = max(t.MethodCalls, earlier.MethodCalls)
	t.MethodFailures = max(t.MethodFailures, earlier.MethodFailures)
	t.TwinWrites = max(t.TwinWrites, earlier.TwinWrites)
	t.MessagesSent = max(t.MessagesSent, earlier.MessagesSent)
}

// traffic is Traffic of this node, without who is connected.
func (s *Server) traffic() Traffic {
	m := s.metrics
	answered := total(m.methods.WithLabelValues("200")) // before all: calls that end meanwhile are no failures
	calls := total(m.methods)
	return Traffic{
		Telemetry:      total(m.events.WithLabelValues(string(SourceTelemetry))),
		MethodCalls:    calls,
		MethodFailures: calls - answered,
		TwinWrites:     total(m.twins),
		MessagesSent:   total(m.sent),
	}
}

// total is the sum of all counters of c.
func total(c prometheus.Collector) uint64 {
	metrics := make(chan prometheus.Metric)
	go func() {
		c.Collect(metrics)
		close(metrics)
	}()
	var sum float64
	for metric := range metrics {
		var d dto.Metric
		if metric.Write(&d) == nil {
			sum += d.GetCounter().GetValue()
		}
	}
	return uint64(sum)
}
