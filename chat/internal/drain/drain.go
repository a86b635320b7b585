// Package drain asks connections to go elsewhere: all of them in even waves when
// the server stops, some when another server has more room, and all at once when
// this server is of no use.
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
	// spread is within how long after its Goodbye a client returns elsewhere.
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
	// Rate bounds how many connections a second are asked, by all servers that
	// leave together; Limit is when the last one has been asked, whatever the rate.
	Rate  int
	Limit time.Duration
	// Settled is how long a connection is here before it is asked to leave for the
	// sake of an even load.
	Settled    time.Duration
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Drain asks. Its methods may be called from any goroutine; those with a context
// block until they are done or it ends.
type Drain struct {
	// Group is to be told of the catalog.
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
		Code: code, Text: text, Reconnect: true, ReconnectAfterMs: uint32(rand.N(within).Milliseconds()),
		Alternates: d.opts.Alternates(),
	}
}

// Replaced is the Goodbye of a server that stops.
func (d *Drain) Replaced() *chatv1.Goodbye {
	return d.Goodbye(chatv1.GoodbyeCode_GOODBYE_CODE_DRAINING, "this server is being replaced", spread)
}

// All ends every connection at once; each client comes back at a time of its own
// within the given one.
func (d *Drain) All(code chatv1.GoodbyeCode, text string, within time.Duration) {
	for _, c := range d.opts.Connections() {
		c.Bye(d.Goodbye(code, text, within))
	}
}

// Ask says goodbye in waves, to each connection once its own messages are
// acknowledged: all servers that leave together ask at most Options.Rate
// connections a second, unless that would take longer than Options.Limit.
// leaving is how long a server may take to leave.
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

// Empty waits until all connections have left, but not longer than limit; those
// that came while the others were asked are asked too.
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
