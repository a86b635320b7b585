package probe

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	verified, troubles, unknown prometheus.Counter
	broken                      *prometheus.CounterVec
	acked, told                 prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) *metrics {
	buckets := prometheus.ExponentialBuckets(0.001, 2, 16) // 1 ms to half a minute
	m := &metrics{
		verified: prometheus.NewCounter(prometheus.CounterOpts{Name: "msrchat_probe_verified_total", Help: "Acknowledged messages that were found in the log and delivered."}),
		troubles: prometheus.NewCounter(prometheus.CounterOpts{Name: "msrchat_probe_troubles_total", Help: "Failures that break no promise: a server or the database did not answer."}),
		unknown:  prometheus.NewCounter(prometheus.CounterOpts{Name: "msrchat_probe_unknown_total", Help: "Messages that nobody acknowledged before the probe gave them up."}),
		broken:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "msrchat_probe_broken_total", Help: "Broken promises by kind."}, []string{"kind"}),
		acked:    prometheus.NewHistogram(prometheus.HistogramOpts{Name: "msrchat_probe_acknowledged_seconds", Help: "Time from a send to its acknowledgement.", Buckets: buckets}),
		told:     prometheus.NewHistogram(prometheus.HistogramOpts{Name: "msrchat_probe_delivered_seconds", Help: "Time from a send to its push at the reader.", Buckets: buckets}),
	}
	for _, kind := range kinds {
		m.broken.WithLabelValues(string(kind)) // there from the start, as 0
	}
	reg.MustRegister(m.verified, m.troubles, m.unknown, m.broken, m.acked, m.told)
	return m
}
