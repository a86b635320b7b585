package peer

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	frames, dropped, gaps prometheus.Counter
	forwardSeconds        prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "msrchat_peer_" + name, Help: help})
	}
	m := &metrics{
		frames:  counter("frames_total", "Relay frames sent, keepalives included."),
		dropped: counter("dropped_total", "Deliveries dropped because a link was too slow."),
		gaps:    counter("gaps_total", "Times that something from a peer may have been lost."),
		forwardSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "msrchat_peer_forward_seconds",
			Help:    "Time for an append at the conversation's owner.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
	}
	if reg != nil {
		reg.MustRegister(m.frames, m.dropped, m.gaps, m.forwardSeconds)
	}
	return m
}
