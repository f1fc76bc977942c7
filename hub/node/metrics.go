package node

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/iotdm/iotdm/hub/eventlog"
	"github.com/iotdm/iotdm/hub/store"
)

// newMetrics returns what an operator watches: of the process, and of parts,
// which own what they count. Each node has its own.
func newMetrics(parts ...[]prometheus.Collector) *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, part := range parts {
		registry.MustRegister(part...)
	}
	return registry
}

func serveMetrics(registry *prometheus.Registry) http.Handler {
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
}

// fsyncBuckets are from a fast SSD's to those of a disk that is failing, in
// seconds.
var fsyncBuckets = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

// diskMetrics returns what is on disk, and how the disk does. The store and the
// event log know nothing of Prometheus.
func diskMetrics(db *store.DB, events *eventlog.Log) []prometheus.Collector {
	syncs := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "iotdm_hub_fsync_seconds", Help: "How long the fsyncs took that acknowledgements wait for: of the store's log and of the event log.", Buckets: fsyncBuckets,
	}, []string{"of"})
	observe := func(of string) func(time.Duration) {
		h := syncs.WithLabelValues(of)
		return func(d time.Duration) { h.Observe(d.Seconds()) }
	}
	db.OnSync(observe("store"))
	events.OnSync(observe("events"))
	return []prometheus.Collector{syncs, diskCollector{db, events}}
}

// A diskCollector asks the store and the event log once for all its metrics.
type diskCollector struct {
	db     *store.DB
	events *eventlog.Log
}

// A figure is a metric that is computed from Stats.
type figure[S any] struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(S) float64
}

func gauge[S any](name, help string, value func(S) float64) figure[S] {
	return figure[S]{prometheus.NewDesc("iotdm_hub_"+name, help, nil, nil), prometheus.GaugeValue, value}
}

func counter[S any](name, help string, value func(S) float64) figure[S] {
	return figure[S]{prometheus.NewDesc("iotdm_hub_"+name, help, nil, nil), prometheus.CounterValue, value}
}

var storeFigures = []figure[store.Stats]{
	gauge("store_bytes", "Size of the store on disk.", func(s store.Stats) float64 { return float64(s.Bytes) }),
	gauge("store_backlog_bytes", "What the store has still to sort; if it only grows, the disk is too slow.", func(s store.Stats) float64 { return float64(s.Backlog) }),
	gauge("store_stalled", "1 while the store cannot write: the disk is full or fails.", func(s store.Stats) float64 { return truth(s.Stalled) }),
	gauge("store_broken", "1 after an fsync or write failed in a way that only a restart of the hub mends.", func(s store.Stats) float64 { return truth(s.Broken) }),
	counter("store_stalls_total", "How often the store could not write.", func(s store.Stats) float64 { return float64(s.Stalls) }),
	counter("store_slowed_total", "How often changes had to wait until the store had sorted what it has.", func(s store.Stats) float64 { return float64(s.Slowed) }),
	counter("store_refused_total", "Changes refused because the disk is full.", func(s store.Stats) float64 { return float64(s.Refused) }),
	counter("store_damage_total", "How often reading the store met damage.", func(s store.Stats) float64 { return float64(s.Damaged) }),
}

var eventFigures = []figure[eventlog.Stats]{
	gauge("event_log_bytes", "Size of the events that are kept.", func(s eventlog.Stats) float64 { return float64(s.Bytes) }),
	gauge("event_log_segments", "Files of the event log.", func(s eventlog.Stats) float64 { return float64(s.Segments) }),
	gauge("event_log_waiting_bytes", "Events that wait for the fsync under way.", func(s eventlog.Stats) float64 { return float64(s.Waiting) }),
	counter("event_log_records_total", "Events that have become durable.", func(s eventlog.Stats) float64 { return float64(s.Records) }),
	counter("event_log_unwritten_total", "Batches of events that could not be written; their senders send them again.", func(s eventlog.Stats) float64 { return float64(s.Unwritten) }),
	counter("event_log_damage_total", "Places in the event log where damage was met and passed over.", func(s eventlog.Stats) float64 { return float64(s.Damaged) }),
	gauge("event_log_tail_bytes", "Bytes behind the last event when the log was opened: a batch that a crash cut off, or damage to the last event.", func(s eventlog.Stats) float64 { return float64(s.Tail) }),
	counter("event_log_damaged_bytes_total", "Bytes in these places.", func(s eventlog.Stats) float64 { return float64(s.DamagedBytes) }),
}

var diskFree = gauge("disk_free_bytes", "Space left for the data folder. A hub that keeps nothing on disk does not have it.", func(s store.Stats) float64 { return float64(s.Free) })

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// Describe implements prometheus.Collector.
func (c diskCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, f := range storeFigures {
		ch <- f.desc
	}
	for _, f := range eventFigures {
		ch <- f.desc
	}
	ch <- diskFree.desc
}

// Collect implements prometheus.Collector.
func (c diskCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.db.Stats()
	for _, f := range storeFigures {
		f.collect(ch, s)
	}
	if s.Sized {
		diskFree.collect(ch, s)
	}
	e := c.events.Stats()
	for _, f := range eventFigures {
		f.collect(ch, e)
	}
}

func (f figure[S]) collect(ch chan<- prometheus.Metric, s S) {
	ch <- prometheus.MustNewConstMetric(f.desc, f.kind, f.value(s))
}
