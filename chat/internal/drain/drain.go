// Package drain asks connections to go to another server: all of them in even waves
// when this server stops, some when another server has more room, and all at once
// when this server cannot serve.
package drain

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"

	"github.com/msrchat/msrchat/chat/internal/conn"
)

const (
	// wave is how often a part of the connections is asked to leave.
	wave = 100 * time.Millisecond
	// spread is the longest time between a Goodbye and the reconnect.
	spread = 250 * time.Millisecond
)

// Options are what Drain is made of.
type Options struct {
	// Connections lists the connections, in random order.
	Connections func() []*conn.Conn
	// Count is how many there are.
	Count func() int
	// Alternates are the addresses where clients may go.
	Alternates func() []*chatv1.Endpoint
	// Rate is how many connections a second are asked at most, by all servers that
	// leave together. After Limit the last one has been asked, whatever the rate.
	Rate  int
	Limit time.Duration
	// Settled is how old a connection must be to be asked to leave for the sake of an
	// even load.
	Settled    time.Duration
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Drain asks connections to leave. Its methods may be called from any goroutine.
// Those with a context block until they are done or it ends.
type Drain struct {
	// Group must be updated with the catalog.
	Group *Group

	opts Options
	shed shedding
}

// New returns a Drain for a server by its instance id.
func New(instance string, opts Options) *Drain {
	return &Drain{opts: opts, Group: newGroup(instance), shed: newShedding(opts.Registerer)}
}

// Goodbye tells a client to come back within a time, here or at another server.
func (d *Drain) Goodbye(code chatv1.GoodbyeCode, text string, within time.Duration) *chatv1.Goodbye {
	return &chatv1.Goodbye{
		Code:             code,
		Text:             text,
		Reconnect:        true,
		ReconnectAfterMs: uint32(rand.N(within).Milliseconds()),
		Alternates:       d.opts.Alternates(),
	}
}

// Replaced is the Goodbye of a server that stops.
func (d *Drain) Replaced() *chatv1.Goodbye {
	return d.Goodbye(chatv1.GoodbyeCode_GOODBYE_CODE_DRAINING, "this server is being replaced", spread)
}

// All ends every connection at once. The clients come back at random times within
// the given one.
func (d *Drain) All(code chatv1.GoodbyeCode, text string, within time.Duration) {
	for _, c := range d.opts.Connections() {
		c.Bye(d.Goodbye(code, text, within))
	}
}

// Ask asks all connections to leave, in waves; each ends once its own messages are
// acknowledged. All servers that leave together ask at most Options.Rate connections
// a second, unless that would take longer than Options.Limit. A server that left the
// catalog within leaving, the time that a stop may take, counts as one of them.
func (d *Drain) Ask(ctx context.Context, leaving time.Duration) {
	ticker := time.NewTicker(wave)
	defer ticker.Stop()
	started, all := time.Now(), d.opts.Connections()
	plan := pace{total: len(all), limit: d.opts.Limit}
	for at := started; len(all) > 0 && d.opts.Count() > 0; {
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
		now := time.Now()
		together := 1 + d.Group.since(leaving, now)
		n := plan.next(now.Sub(started), now.Sub(at), float64(d.opts.Rate)/float64(together))
		if ctx.Err() != nil {
			n = len(all)
		}
		for _, c := range all[:n] {
			c.Drain(d.Replaced())
		}
		all, at = all[n:], now
	}
	if plan.hurried {
		d.opts.Logger.Warn("more connections than the drain's rate lets go in its time",
			"connections", plan.total, "rate", d.opts.Rate, "drain", d.opts.Limit)
	}
}

// Empty waits until all connections have left, at most as long as limit. It also asks
// those that came after the list of Ask was made.
func (d *Drain) Empty(ctx context.Context, limit time.Duration) {
	ticker := time.NewTicker(wave)
	defer ticker.Stop()
	for end := time.Now().Add(limit); d.opts.Count() > 0 && time.Now().Before(end) && ctx.Err() == nil; {
		for _, c := range d.opts.Connections() {
			if !c.Leaving() {
				c.Drain(d.Replaced())
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
}
