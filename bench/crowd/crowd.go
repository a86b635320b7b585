// Package crowd is many users who are connected and idle: what they cost, and how
// they reconnect after they lost their server.
package crowd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/retry"
	"github.com/msrchat/msrchat/shared/wire"

	"github.com/msrchat/msrchat/bench/failure"
	"github.com/msrchat/msrchat/bench/latency"
)

// Connect connects the i-th user. It is called from any goroutine.
type Connect func(ctx context.Context, i int) (*wire.Conn, error)

// backoff is the client library's (client.Backoff).
var backoff = retry.Policy{First: 250 * time.Millisecond, Min: 500 * time.Millisecond, Max: 15 * time.Second}

// attemptTimeout bounds one attempt, the gate included.
const attemptTimeout = time.Minute

// Crowd is the users. Enter connects them, Close ends all.
type Crowd struct {
	connect Connect
	size    int
	ctx     context.Context
	cancel  context.CancelFunc
	members sync.WaitGroup

	// connected counts those whose login was accepted, synced those of them who
	// got the heads of their conversations.
	connected, synced, lost, attempts atomic.Int64
	back                              *latency.Recorder // from the loss to synced again
	entered                           *latency.Recorder // from the first attempt to Welcome

	mu     sync.Mutex // owns the fields below
	errors map[string]int64
	// refused is why the first of those gave up who are not to come back.
	refused error
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

// Enter connects everybody, at most rate a second (0: as fast as possible), and
// returns when they are connected. A user who is refused tries again until ctx
// ends, unless the server says that this cannot help.
func (c *Crowd) Enter(ctx context.Context, rate float64) error {
	stop := context.AfterFunc(ctx, c.cancel)
	defer stop()
	todo := make(chan int)
	var working sync.WaitGroup
	for range min(entering, c.size) {
		working.Go(func() {
			for i := range todo {
				started := time.Now()
				if conn := c.try(i, 0, nil); conn != nil {
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
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refused
}

// feed hands out the users' numbers at the rate.
func (c *Crowd) feed(todo chan<- int, rate float64) {
	started := time.Now()
	for i := range c.size {
		due := time.Duration(0)
		if rate > 0 {
			due = time.Duration(float64(i) / rate * float64(time.Second))
		}
		if !retry.Sleep(c.ctx, due-time.Since(started)) {
			return
		}
		select {
		case todo <- i:
		case <-c.ctx.Done():
			return
		}
	}
}

// try connects as often as needed, after the failures that there were already;
// the last one was cause. It returns nil when the crowd was closed, and when the
// server said that coming back cannot help.
func (c *Crowd) try(i, failures int, cause error) *wire.Conn {
	for ; ; failures++ {
		wait := backoff.After(failures)
		var bye *wire.GoodbyeError
		if errors.As(cause, &bye) {
			if !bye.Reconnect() {
				c.giveUp(i, cause)
				return nil
			}
			wait = max(wait, retry.Asked(bye.After()))
		}
		if !retry.Sleep(c.ctx, wait) {
			return nil
		}
		c.attempts.Add(1)
		ctx, cancel := context.WithTimeout(c.ctx, attemptTimeout)
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
		cause = err
	}
}

func (c *Crowd) giveUp(i int, cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refused == nil {
		c.refused = fmt.Errorf("user %d: %w", i, cause)
	}
}

// stay holds a connection, and reconnects when it is lost.
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
		if conn = c.try(i, 1, err); conn == nil {
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

// Frame waits for the heads that a server pushes at connect: with them a client
// has what it needs to pull what it missed.
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

// Drained has nothing to write.
func (m *member) Drained() {}

// failed counts what went wrong.
func (c *Crowd) failed(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.errors[failure.Kind(err)]++
}

// State is how a crowd is.
type State struct {
	Connected, Synced int
	// Lost counts lost connections, Attempts attempts to connect.
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
		Connected: int(c.connected.Load()), Synced: int(c.synced.Load()),
		Lost: c.lost.Load(), Attempts: c.attempts.Load(),
		FirstLoss: c.firstLoss, LastBack: c.lastBack,
	}
}

// Back are the times from a lost connection to being synced again.
func (c *Crowd) Back() latency.Summary { return c.back.Summary() }

// Entered are the times from the first attempt to Welcome.
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
