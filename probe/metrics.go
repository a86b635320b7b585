package probe

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	verified, troubles, unknown prometheus.Counter
	broken                      *prometheus.CounterVec
	acked, delivered            prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) *metrics {
	buckets := prometheus.ExponentialBuckets(0.001, 2, 16) // 1 ms to half a minute
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "msrchat_probe_" + name, Help: help})
	}
	histogram := func(name, help string) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "msrchat_probe_" + name, Help: help, Buckets: buckets,
		})
	}
	m := &metrics{
		verified: counter("verified_total", "Acknowledged messages that were found in the log and delivered."),
		troubles: counter("failures_total", "Failures that break no promise: a server or the database did not answer."),
		unknown:  counter("unknown_total", "Messages that were given up before they were acknowledged."),
		broken: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "msrchat_probe_broken_total", Help: "Broken promises by kind.",
		}, []string{"kind"}),
		acked:     histogram("acknowledged_seconds", "Time from a send to its acknowledgement."),
		delivered: histogram("delivered_seconds", "Time from a send to its push at the reader."),
	}
	for _, kind := range kinds {
		m.broken.WithLabelValues(string(kind)) // there from the start, as 0
	}
	reg.MustRegister(m.verified, m.troubles, m.unknown, m.broken, m.acked, m.delivered)
	return m
}
