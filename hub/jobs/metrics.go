package jobs

import (
	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what an operator watches of the jobs.
type metrics struct {
	ended *prometheus.CounterVec // jobs, by status
	rows  *prometheus.CounterVec // devices that have their outcome, by status
}

func newMetrics() metrics {
	m := metrics{
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "iotdm_hub_jobs_ended_total", Help: "Scheduled jobs that have ended, by status.",
		}, []string{"status"}),
		rows: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "iotdm_hub_job_rows_total", Help: "Devices of scheduled jobs that have got their outcome, by status.",
		}, []string{"status"}),
	}
	for _, s := range []Status{Completed, Failed, Cancelled} {
		m.ended.WithLabelValues(string(s))
	}
	for _, s := range []rowStatus{rowCompleted, rowFailed, rowCanceled} {
		m.rows.WithLabelValues(string(s))
	}
	return m
}

// outcome counts a row that got its outcome.
func (m metrics) outcome(s rowStatus) { m.rows.WithLabelValues(string(s)).Inc() }

// Metrics returns what is counted, to be registered.
func (s *Scheduler) Metrics() []prometheus.Collector {
	return []prometheus.Collector{s.metrics.ended, s.metrics.rows, activeCollector{s}}
}

var (
	activeJobs = prometheus.NewDesc("iotdm_hub_jobs", "Scheduled jobs that have not ended, by status.", []string{"status"}, nil)
	activeRows = prometheus.NewDesc("iotdm_hub_job_rows", "Devices of running jobs that have no outcome yet, by status.", []string{"status"}, nil)
)

// An activeCollector counts the jobs that have not ended, which are few and in
// memory. Whether one is scheduled or queued depends on the time.
type activeCollector struct{ s *Scheduler }

func (c activeCollector) Describe(ch chan<- *prometheus.Desc) { ch <- activeJobs; ch <- activeRows }

func (c activeCollector) Collect(ch chan<- prometheus.Metric) {
	jobs, rows := c.s.jobs.summary(c.s.hub.Now())
	for _, s := range []Status{Queued, Scheduled, Running, Cancelled} {
		ch <- prometheus.MustNewConstMetric(activeJobs, prometheus.GaugeValue, float64(jobs[s]), string(s))
	}
	ch <- prometheus.MustNewConstMetric(activeRows, prometheus.GaugeValue, float64(rows.Pending), string(rowPending))
	ch <- prometheus.MustNewConstMetric(activeRows, prometheus.GaugeValue, float64(rows.Running), string(rowRunning))
}
