package cluster

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics returns what an operator watches of the node as a member, to be registered.
func (m *Membership) Metrics() []prometheus.Collector {
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "iotdm_hub_cluster_" + name, Help: help}, value)
	}
	return []prometheus.Collector{
		gauge("members", "Nodes of the hub.", func() float64 { return float64(len(m.replica.Members())) }),
		gauge("leader", "1 on the node that does what one node does for all.", func() float64 {
			if m.Leader() == m.epoch {
				return 1
			}
			return 0
		}),
		gauge("log_applied", "Position in the log up to which this node has it; far apart on two nodes: one is behind.", func() float64 {
			pos, _, _ := m.replica.Applied()
			return float64(pos)
		}),
		gauge("log_lag_seconds", "How long ago the log took what this node put into it and has not read there yet; from 2 s on the node is not ready.", func() float64 {
			return m.replica.Lag().Seconds()
		}),
		gauge("beat_age_seconds", "How long ago this node's last sign of life was made that came into the log; from 4 s on without NATS, and from 20 s on with it, the node serves nobody.", func() float64 {
			m.mu.Lock()
			defer m.mu.Unlock()
			return time.Since(m.lastBeat).Seconds()
		}),
		gauge("nats_connected", "1 while there is a connection to NATS.", func() float64 {
			if m.conn.IsConnected() {
				return 1
			}
			return 0
		}),
	}
}
