package web

import (
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/msrchat/msrchat/gate/internal/limit"
	"github.com/msrchat/msrchat/gate/internal/problem"
	"github.com/msrchat/msrchat/gate/internal/request"
	"github.com/msrchat/msrchat/shared/errs"
)

// Concurrency bounds how many requests are worked on at once, and so the memory
// and the connections to the databases that they use together. One too many is
// refused at once with a retry time. One network may have as many as are free beside
// its own, at most half of all: a crowd in one place leaves room for everybody else.
// Health checks and scrapes are always answered: overload is no reason to restart the
// process.
type Concurrency struct {
	most int
	full prometheus.Counter

	mu       sync.Mutex // owns the fields below
	working  int
	networks map[string]int // working, by the network that asked
}

// NewConcurrency returns a bound of most whose metrics are registered with reg.
func NewConcurrency(most int, reg prometheus.Registerer) *Concurrency {
	c := &Concurrency{
		most: most, networks: make(map[string]int),
		full: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "msrchat_gate_overloaded_total", Help: "Requests refused because too many were being worked on.",
		}),
	}
	reg.MustRegister(c.full, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "msrchat_gate_requests", Help: "Requests being worked on.",
	}, func() float64 {
		c.mu.Lock()
		defer c.mu.Unlock()
		return float64(c.working)
	}))
	return c
}

// Wrap bounds next.
func (c *Concurrency) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if polled[r.Pattern] {
			next.ServeHTTP(w, r)
			return
		}
		network := limit.Network(request.From(r.Context()).Client)
		if !c.begin(network) {
			c.full.Inc()
			// Random, so that they do not come back as one.
			err := errs.New(errs.CodeExhausted, "too many people are here at this moment; try again in a few seconds").
				Retry(time.Second + rand.N(2*time.Second))
			problem.Write(w, problem.From(r.Context(), err))
			return
		}
		defer c.end(network)
		next.ServeHTTP(w, r)
	})
}

// begin says whether there is room for one more request.
func (c *Concurrency) begin(network string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if free := c.most - c.working; free < 1 || c.networks[network] >= max(free, 1) {
		return false
	}
	c.working++
	c.networks[network]++
	return true
}

func (c *Concurrency) end(network string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.working--
	if c.networks[network]--; c.networks[network] == 0 {
		delete(c.networks, network)
	}
}
