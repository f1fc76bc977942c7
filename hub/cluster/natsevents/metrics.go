package natsevents

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// counters are what is counted of a Log.
type counters struct {
	batches, records, bytes atomic.Int64
	unwritten, repeated     atomic.Int64
	damaged                 atomic.Int64
	ownLost                 atomic.Int64

	seconds prometheus.Histogram
}

func (c *counters) init() {
	c.seconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "iotdm_hub_event_stream_seconds",
		Help:    "How long the stream took to have a batch of events.",
		Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16),
	})
}

// stored counts a batch that the stream has.
func (c *counters) stored(records, bytes int, took time.Duration) {
	c.batches.Add(1)
	c.records.Add(int64(records))
	c.bytes.Add(int64(bytes))
	c.seconds.Observe(took.Seconds())
}

// Metrics returns what is counted, to be registered.
func (l *Log) Metrics() []prometheus.Collector {
	counter := func(name, help string, value *atomic.Int64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "iotdm_hub_event_stream_" + name, Help: help},
			func() float64 { return float64(value.Load()) })
	}
	gauge := func(name, help string, value func() int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "iotdm_hub_event_stream_" + name, Help: help},
			func() float64 { return float64(value()) })
	}
	s := &l.stats
	return []prometheus.Collector{
		s.seconds,
		counter("batches_total", "Batches of events that this node has put into the stream.", &s.batches),
		counter("records_total", "Events in these batches.", &s.records),
		counter("bytes_total", "Bytes of these batches.", &s.bytes),
		counter("repeated_total", "Batches that were sent again because the stream did not say that it had them.", &s.repeated),
		counter("unwritten_total", "Batches that the stream did not take; their senders send them again.", &s.unwritten),
		counter("damaged_total", "Messages of the stream that could not be read and were passed over.", &s.damaged),
		counter("own_lost_total", "Events of the hub's own that were lost because the stream took none for long.", &s.ownLost),
		gauge("own_waiting", "Events of the hub's own that this node keeps until the stream has them.", l.own.count),
		gauge("waiting_bytes", "Events that wait for a batch on its way to the stream.", l.waiting),
	}
}

// waiting returns how many bytes wait for batches on the way.
func (l *Log) waiting() (n int) {
	for _, lane := range l.lanes {
		n += lane.waiting()
	}
	return n
}
