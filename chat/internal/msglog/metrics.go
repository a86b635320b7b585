package msglog

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	rows, conflicts, existing, locked, lost, queueFull prometheus.Counter
	batchRows, batchSeconds                            prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "msrchat_log_" + name, Help: help})
	}
	m := &metrics{
		rows:      counter("rows_total", "Events with a result."),
		conflicts: counter("conflicts_total", "Batches that met another writer or a repeated message."),
		existing:  counter("existing_total", "Events that were in the log already."),
		locked:    counter("locked_total", "Transactions that took locks because of a conflict."),
		lost:      counter("lost_connections_total", "Connections that broke during a statement."),
		queueFull: counter("queue_full_total", "Appends that had to wait for room in the queue."),
		batchRows: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "msrchat_log_batch_rows",
			Help:    "Events per batch.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 10),
		}),
		batchSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "msrchat_log_batch_seconds",
			Help:    "Time from taking a batch to its commit.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
	}
	if reg != nil {
		reg.MustRegister(
			m.rows, m.conflicts, m.existing, m.locked, m.lost, m.queueFull, m.batchRows, m.batchSeconds)
	}
	return m
}

func (m *metrics) batch(rows int, took time.Duration) {
	m.rows.Add(float64(rows))
	m.batchRows.Observe(float64(rows))
	m.batchSeconds.Observe(took.Seconds())
}
