package web

import (
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/msrchat/msrchat/gate/internal/problem"
	"github.com/msrchat/msrchat/shared/errs"
)

// Crowd bounds how many requests are worked on at once, and so what they may
// take together in memory and of the databases. One too many is told to come
// back, at once and at no cost. Machines that ask how the process is are always
// answered: a crowd is no reason to have it restarted.
type Crowd struct {
	places chan struct{}
	full   prometheus.Counter
}

// NewCrowd returns a bound of most whose metrics are registered with reg.
func NewCrowd(most int, reg prometheus.Registerer) *Crowd {
	c := &Crowd{
		places: make(chan struct{}, most),
		full:   prometheus.NewCounter(prometheus.CounterOpts{Name: "msrchat_gate_crowded_total", Help: "Requests sent away because too many were being worked on."}),
	}
	reg.MustRegister(c.full, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "msrchat_gate_requests", Help: "Requests being worked on.",
	}, func() float64 { return float64(len(c.places)) }))
	return c
}

// Wrap bounds next.
func (c *Crowd) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if quiet[r.Pattern] {
			next.ServeHTTP(w, r)
			return
		}
		select {
		case c.places <- struct{}{}:
			defer func() { <-c.places }()
			next.ServeHTTP(w, r)
		default:
			c.full.Inc()
			// Spread, so that they do not come back as one.
			problem.Write(w, problem.From(r.Context(), errs.New(errs.CodeExhausted, "too many people are here at this moment; try again in a few seconds").
				Retry(time.Second+rand.N(2*time.Second))))
		}
	})
}
