// Package load lets pairs of users talk and measures how long it takes until a
// message is acknowledged and delivered, and that none is lost, doubled or out of
// order.
//
// Of each two clients the first sends and the second receives. In a closed loop
// each pair has a fixed number of messages outstanding; one is done when it was
// acknowledged and received. In an open loop messages become due at a fixed rate,
// whatever the servers do, and times count from the moment a message was due: a
// server that stalls is charged for all that waited meanwhile.
package load

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/msrchat/msrchat/shared/text"
	"github.com/msrchat/msrchat/shared/wire"

	"github.com/msrchat/msrchat/bench/latency"
)

// maxOutstanding is how many messages a pair has under way at most: what a chat
// server allows on a connection (Limits.max_unacknowledged).
const maxOutstanding = 256

// Config says what to do.
type Config struct {
	// Clients is how many connect, an even number.
	Clients int `json:"clients"`
	// Window is how many messages of a pair are outstanding in a closed loop.
	Window int `json:"window,omitempty"`
	// Rate makes it an open loop of that many messages a second in all.
	Rate float64 `json:"rate,omitempty"`
	// MinSize and MaxSize bound a text's length in bytes.
	MinSize int `json:"min_size"`
	MaxSize int `json:"max_size"`
	// Nothing is counted during Warmup. Settle is how long the messages that are
	// under way at the end of Duration are waited for.
	Warmup   time.Duration `json:"warmup_ns"`
	Duration time.Duration `json:"duration_ns"`
	Settle   time.Duration `json:"settle_ns"`
}

// Validate says what is wrong before anything is started.
func (c Config) Validate() error {
	switch {
	case c.Clients < 2 || c.Clients%2 != 0:
		return fmt.Errorf("%d clients: an even number of at least 2 is needed, they talk in pairs", c.Clients)
	case c.Rate < 0 || c.Rate > 1e6:
		return fmt.Errorf("a rate of %v messages a second: between 0 and 1000000 is possible", c.Rate)
	case c.Rate > 0 && c.Window > 0:
		return errors.New("a rate makes an open loop, a window a closed one: give one of them")
	case c.Rate == 0 && (c.Window < 1 || c.Window > maxOutstanding):
		return fmt.Errorf("a window of %d: between 1 and %d is possible", c.Window, maxOutstanding)
	case c.MinSize < 1 || c.MaxSize < c.MinSize || c.MaxSize > text.MaxMessageRunes:
		return fmt.Errorf("texts of %d to %d bytes: between 1 and %d is possible",
			c.MinSize, c.MaxSize, text.MaxMessageRunes)
	case c.Warmup < 0 || c.Duration <= 0 || c.Settle <= 0:
		return errors.New("the duration must be positive")
	}
	return nil
}

// Side is what the load is put on: the system, or a floor.
type Side interface {
	// Connect connects the i-th client; it is called again when a connection was
	// lost. It may be called from any goroutine.
	Connect(ctx context.Context, i int) (*wire.Conn, error)
	// Name is the i-th client's name for those who begin a conversation.
	Name(i int) string
}

// Hooks are called during a run, from the goroutine of Run.
type Hooks struct {
	// Connected is called when all clients are connected; Begin and End around the
	// time that is measured.
	Connected func(conns []*wire.Conn)
	Begin     func()
	End       func()
	// Progress is called once a second.
	Progress func(Progress)
}

// Progress is how far a run is.
type Progress struct {
	Stage     string // "connecting", "warming up", "measuring", "settling"
	Elapsed   time.Duration
	Connected int
	Delivered int64
	Rate      float64 // delivered a second since the last call
	Waiting   int64   // due or sent, and not done
	Errors    int64
}

// Result is what a run measured. The counts, Measured excepted, are of all
// messages, those of the warm-up too.
type Result struct {
	Sent, Acked, Delivered int64
	// Unanswered were sent and neither acknowledged nor refused by the end.
	Unanswered int64
	// Lost were acknowledged and not received by the end. Doubled are in the log
	// twice, Reordered behind one that was sent later, Misnumbered under another
	// number than acknowledged.
	Lost, Doubled, Reordered, Misnumbered int64
	// Pulled were delivered because the receiver asked, not by a push.
	Pulled int64
	// Seconds is how long it was measured, Measured how many were delivered in it.
	Seconds  float64
	Measured int64
	// Ack and Delivery are times since a message was due.
	Ack, Delivery latency.Summary
	// Errors counts what failed on the way, by kind. A message that was refused for
	// a reason that may pass, or whose connection broke, is sent again.
	Errors map[string]int64
	// Interrupted says that the run was ended early.
	Interrupted bool
}

// Broken says whether a promise was broken.
func (r *Result) Broken() error {
	if r.Lost+r.Doubled+r.Reordered+r.Misnumbered == 0 {
		return nil
	}
	return fmt.Errorf("%d messages lost, %d doubled, %d out of order, %d under another number than acknowledged",
		r.Lost, r.Doubled, r.Reordered, r.Misnumbered)
}

// runner is one run. The atomics and the mutex's fields are shared; the rest is
// set before the first connection.
type runner struct {
	cfg   Config
	side  Side
	hooks Hooks
	texts []byte // every text is a beginning of it
	nonce uint32
	start time.Time
	pairs []*pair

	ack, delivery *latency.Recorder
	// measuring is set while times are recorded, sending while new messages are.
	measuring, sending                                              atomic.Bool
	sent, acked, delivered, measured                                atomic.Int64
	waiting                                                         atomic.Int64
	lost, doubled, reordered, misnumbered, pulled, unanswered, fail atomic.Int64
	connected                                                       atomic.Int64

	mu     sync.Mutex // owns errors
	errors map[string]int64
}

// Run connects everybody, makes the load and measures. When ctx ends early it
// stops sending, settles and returns what was measured so far; an error means
// that there is nothing to report.
func Run(ctx context.Context, cfg Config, side Side, hooks Hooks) (*Result, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	r := newRunner(cfg, side, hooks)
	// The connections outlive ctx: what is under way when it ends is waited for.
	living, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	conns, err := r.connect(ctx)
	if err != nil {
		return nil, err
	}
	var serving sync.WaitGroup
	for i, c := range conns {
		serving.Go(func() { r.attend(living, i, c) })
	}
	if hooks.Connected != nil {
		hooks.Connected(conns)
	}
	began, seconds := r.drive(ctx)
	r.settle(ctx)
	end()
	serving.Wait()
	for _, p := range r.pairs {
		p.finish()
	}
	if !began {
		return nil, ctx.Err()
	}
	return r.result(seconds, ctx.Err() != nil), nil
}

func (r *runner) result(seconds float64, interrupted bool) *Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	return &Result{
		Sent: r.sent.Load(), Acked: r.acked.Load(), Delivered: r.delivered.Load(), Pulled: r.pulled.Load(),
		Unanswered: r.unanswered.Load(), Lost: r.lost.Load(), Doubled: r.doubled.Load(),
		Reordered: r.reordered.Load(), Misnumbered: r.misnumbered.Load(),
		Seconds: seconds, Measured: r.measured.Load(), Ack: r.ack.Summary(), Delivery: r.delivery.Summary(),
		Errors: maps.Clone(r.errors), Interrupted: interrupted,
	}
}

// drive sends for as long as the configuration says. It returns whether anything
// was measured, and for how long.
func (r *runner) drive(ctx context.Context) (began bool, seconds float64) {
	r.sending.Store(true)
	var scheduling sync.WaitGroup
	stop := make(chan struct{})
	if r.cfg.Rate > 0 {
		scheduling.Go(func() { r.schedule(stop) })
	} else {
		for _, p := range r.pairs {
			p.pump()
		}
	}
	if r.stage(ctx, "warming up", r.cfg.Warmup) {
		if r.hooks.Begin != nil {
			r.hooks.Begin()
		}
		from := time.Now()
		r.measuring.Store(true)
		r.stage(ctx, "measuring", r.cfg.Duration)
		r.measuring.Store(false)
		began, seconds = true, time.Since(from).Seconds()
		if r.hooks.End != nil {
			r.hooks.End()
		}
	}
	r.sending.Store(false)
	close(stop)
	scheduling.Wait()
	return began, seconds
}

// stage waits, with progress; false means that ctx ended.
func (r *runner) stage(ctx context.Context, name string, d time.Duration) bool {
	started := time.Now()
	end := time.NewTimer(d)
	defer end.Stop()
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for last := r.delivered.Load(); ; {
		select {
		case <-ctx.Done():
			return false
		case <-end.C:
			return true
		case <-ticker.C:
			now := r.delivered.Load()
			r.progress(name, time.Since(started), float64(now-last))
			last = now
		}
	}
}

func (r *runner) progress(stage string, elapsed time.Duration, rate float64) {
	if r.hooks.Progress == nil {
		return
	}
	r.hooks.Progress(Progress{
		Stage: stage, Elapsed: elapsed, Connected: int(r.connected.Load()), Delivered: r.delivered.Load(), Rate: rate,
		Waiting: r.waiting.Load(), Errors: r.fail.Load(),
	})
}

// settleTick is how often settle checks, and pullAfter how long it waits for a
// push before it pulls.
const (
	settleTick = 20 * time.Millisecond
	pullAfter  = 2 * time.Second
)

// settle waits until nothing is under way. A receiver whose push was dropped is
// sent the head by the server's repair, or pulls.
func (r *runner) settle(ctx context.Context) {
	started, pulled := time.Now(), time.Now()
	ticker := time.NewTicker(settleTick)
	defer ticker.Stop()
	shown := 0 // seconds
	for r.waiting.Load() > 0 {
		<-ticker.C
		elapsed := time.Since(started)
		if elapsed > r.cfg.Settle {
			return
		}
		if int(elapsed.Seconds()) > shown {
			shown = int(elapsed.Seconds())
			r.progress("settling", elapsed, 0)
			if ctx.Err() != nil && elapsed > r.cfg.Settle/4 {
				return // interrupted: a quarter of the time has to do
			}
		}
		if time.Since(pulled) > pullAfter {
			pulled = time.Now()
			for _, p := range r.pairs {
				p.pullRest()
			}
		}
	}
}

// schedule makes messages due at the rate, one pair after the other.
func (r *runner) schedule(stop <-chan struct{}) {
	from := time.Since(r.start)
	due := func(k int) time.Duration { return from + time.Duration(float64(k)/r.cfg.Rate*float64(time.Second)) }
	timer := time.NewTimer(0)
	defer timer.Stop()
	for k := 0; ; {
		select {
		case <-stop:
			return
		case <-timer.C:
		}
		for ; due(k) <= time.Since(r.start); k++ {
			r.pairs[k%len(r.pairs)].add(due(k))
		}
		timer.Reset(due(k) - time.Since(r.start))
	}
}

// failed counts a failure.
func (r *runner) failed(kind string) {
	r.fail.Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.errors[kind]++
}
