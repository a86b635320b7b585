package web

import (
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/msrchat/msrchat/gate/internal/problem"
	"github.com/msrchat/msrchat/shared/errs"
)

// Concurrency bounds how many requests are worked on at once, and so the memory
// and the connections to the databases that they use together. One too many is
// refused at once with a retry time. Health checks and scrapes are always
// answered: overload is no reason to restart the process.
type Concurrency struct {
	slots chan struct{}
	full  prometheus.Counter
}

// NewConcurrency returns a bound of most whose metrics are registered with reg.
func NewConcurrency(most int, reg prometheus.Registerer) *Concurrency {
	c := &Concurrency{
		slots: make(chan struct{}, most),
		full: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "msrchat_gate_overloaded_total", Help: "Requests refused because too many were being worked on.",
		}),
	}
	reg.MustRegister(c.full, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "msrchat_gate_requests", Help: "Requests being worked on.",
	}, func() float64 { return float64(len(c.slots)) }))
	return c
}

// Wrap bounds next.
func (c *Concurrency) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if polled[r.Pattern] {
			next.ServeHTTP(w, r)
			return
		}
		select {
		case c.slots <- struct{}{}:
			defer func() { <-c.slots }()
			next.ServeHTTP(w, r)
		default:
			c.full.Inc()
			// Random, so that they do not come back as one.
			err := errs.New(errs.CodeExhausted, "too many people are here at this moment; try again in a few seconds").
				Retry(time.Second + rand.N(2*time.Second))
			problem.Write(w, problem.From(r.Context(), err))
		}
	})
}
