// Package crowd is many users who are connected and say nothing: what they cost,
// and how they come back after they lost their server.
package crowd

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"

	"github.com/msrchat/msrchat/bench/latency"
	"github.com/msrchat/msrchat/bench/wire"
)

// Connect connects the i-th user. It is called from any goroutine.
type Connect func(ctx context.Context, i int) (*wire.Conn, error)

// The waits between attempts are the client library's (client.Backoff).
const (
	firstWait = 250 * time.Millisecond
	baseWait  = 500 * time.Millisecond
	maxWait   = 15 * time.Second
)

// Crowd is the users. Enter lets them in, Close ends all.
type Crowd struct {
	connect Connect
	size    int
	ctx     context.Context
	cancel  context.CancelFunc
	members sync.WaitGroup

	// synced counts those who are connected and were told the heads of their
	// conversations; connected those who were let in.
	connected, synced, lost, attempts atomic.Int64
	back                              *latency.Recorder // from the loss to synced again
	entered                           *latency.Recorder // from the first attempt to let in

	mu     sync.Mutex // owns the fields below
	errors map[string]int64
	// firstLoss is when the first connection was lost, lastBack when the last one
	// was synced again.
	firstLoss, lastBack time.Time
}

// New returns a crowd of n users, none of whom is connected.
func New(n int, connect Connect) *Crowd {
	ctx, cancel := context.WithCancel(context.Background())
	return &Crowd{
		connect: connect, size: n, ctx: ctx, cancel: cancel, errors: make(map[string]int64),
		back: latency.NewRecorder(), entered: latency.NewRecorder(),
	}
}

// entering is how many connect at once.
const entering = 128

// Enter connects everybody, at most rate a second (0: as fast as it goes), and
// returns when they are in. Who is refused tries again, until ctx ends.
func (c *Crowd) Enter(ctx context.Context, rate float64) error {
	stop := context.AfterFunc(ctx, c.cancel)
	defer stop()
	todo := make(chan int)
	var working sync.WaitGroup
	for range min(entering, c.size) {
		working.Go(func() {
			for i := range todo {
				started := time.Now()
				if conn := c.try(i, 0); conn != nil {
					c.entered.Record(i, time.Since(started))
					c.members.Go(func() { c.stay(i, conn) })
				}
			}
		})
	}
	c.feed(todo, rate)
	close(todo)
	working.Wait()
	if ctx.Err() != nil {
		return fmt.Errorf("connecting: %w", context.Cause(ctx))
	}
	return nil
}

func (c *Crowd) feed(todo chan<- int, rate float64) {
	started := time.Now()
	for i := range c.size {
		if rate > 0 {
			due := time.Duration(float64(i) / rate * float64(time.Second))
			timer := time.NewTimer(due - time.Since(started))
			select {
			case <-timer.C:
			case <-c.ctx.Done():
				timer.Stop()
				return
			}
		}
		select {
		case todo <- i:
		case <-c.ctx.Done():
			return
		}
	}
}

// try connects as often as it takes; nil means that the crowd was closed. It
// waits before the first attempt when failures is not 0.
func (c *Crowd) try(i, failures int) *wire.Conn {
	for ; ; failures++ {
		if failures > 0 && !c.pause(failures) {
			return nil
		}
		c.attempts.Add(1)
		ctx, cancel := context.WithTimeout(c.ctx, time.Minute)
		conn, err := c.connect(ctx, i)
		cancel()
		if err == nil {
			c.connected.Add(1)
			return conn
		}
		if c.ctx.Err() != nil {
			return nil
		}
		c.failed(err)
	}
}

func (c *Crowd) pause(failures int) bool {
	wait := rand.N(firstWait + 1)
	if failures > 1 {
		d := min(baseWait<<min(failures-2, 10), maxWait)
		wait = d/2 + rand.N(d/2+1)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-c.ctx.Done():
		return false
	}
}

// stay holds a connection, and comes back when it is lost.
func (c *Crowd) stay(i int, conn *wire.Conn) {
	var lostAt time.Time
	for {
		m := &member{crowd: c, index: i, lostAt: lostAt}
		stop := context.AfterFunc(c.ctx, conn.Close)
		err := conn.Serve(m)
		stop()
		if c.ctx.Err() != nil {
			return
		}
		lostAt = time.Now()
		c.leave(m, err, lostAt)
		if conn = c.try(i, 1); conn == nil {
			return
		}
	}
}

func (c *Crowd) leave(m *member, err error, now time.Time) {
	c.lost.Add(1)
	c.connected.Add(-1)
	if m.synced {
		c.synced.Add(-1)
	}
	c.failed(err)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.firstLoss.IsZero() {
		c.firstLoss = now
	}
}

// member is one user's connection; its fields belong to the goroutine that
// serves it.
type member struct {
	crowd  *Crowd
	index  int
	lostAt time.Time // zero for the first connection
	synced bool
}

// Frame waits for the heads that a server tells at connect: with them a client
// knows what it has to fetch, here nothing.
func (m *member) Frame(f *chatv1.ServerFrame) {
	if m.synced || f.GetHeads() == nil {
		return
	}
	m.synced = true
	c := m.crowd
	c.synced.Add(1)
	if m.lostAt.IsZero() {
		return
	}
	now := time.Now()
	c.back.Record(m.index, now.Sub(m.lostAt))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastBack = now
}

// Drained does nothing.
func (m *member) Drained() {}

// failed counts what went wrong.
func (c *Crowd) failed(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.errors[wire.Kind(err)]++
}

// State is how a crowd is.
type State struct {
	Connected, Synced int
	// Lost is how often a connection was lost, Attempts how often one was tried.
	Lost, Attempts int64
	// FirstLoss is when the first was lost, LastBack when the last one of those
	// was synced again; zero if none was.
	FirstLoss, LastBack time.Time
}

// State may be asked for at any time.
func (c *Crowd) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return State{
		Connected: int(c.connected.Load()), Synced: int(c.synced.Load()), Lost: c.lost.Load(), Attempts: c.attempts.Load(),
		FirstLoss: c.firstLoss, LastBack: c.lastBack,
	}
}

// Back are the times from a lost connection to being synced again, Entered those
// from the first attempt to being let in.
func (c *Crowd) Back() latency.Summary { return c.back.Summary() }

// Entered are the times of the first connections.
func (c *Crowd) Entered() latency.Summary { return c.entered.Summary() }

// Errors counts what went wrong, by kind.
func (c *Crowd) Errors() map[string]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.errors)
}

// Close disconnects everybody and waits for it.
func (c *Crowd) Close() {
	c.cancel()
	c.members.Wait()
}
