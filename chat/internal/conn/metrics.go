package conn

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	accepts, goodbyes, refused *prometheus.CounterVec
	slow                       prometheus.Counter
	sendSeconds                prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) *metrics {
	vec := func(name, help, label string) *prometheus.CounterVec {
		opts := prometheus.CounterOpts{Name: "msrchat_chat_" + name, Help: help}
		return prometheus.NewCounterVec(opts, []string{label})
	}
	m := &metrics{
		accepts:  vec("accepts_total", "Connections accepted, by outcome.", "outcome"),
		goodbyes: vec("goodbyes_total", "Connections ended by the server, by code.", "code"),
		refused:  vec("refused_total", "Requests refused, by code.", "code"),
		slow: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "msrchat_chat_slow_consumers_total",
			Help: "Connections dropped because they read too slowly.",
		}),
		sendSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "msrchat_chat_send_seconds",
			Help:    "Time from reading a message to its acknowledgement.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
	}
	if reg != nil {
		reg.MustRegister(m.accepts, m.goodbyes, m.refused, m.slow, m.sendSeconds)
	}
	return m
}
