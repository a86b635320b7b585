package demo

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/msrchat/msrchat/proof/device"

	"github.com/msrchat/msrchat/e2e/arena"
	"github.com/msrchat/msrchat/e2e/faults"
)

const (
	// settleLimit is how long ann's and ben's last messages may take, showLimit
	// how long their screens may lack them after that.
	settleLimit = 60 * time.Second
	showLimit   = 5 * arena.Heartbeat
	// checkEvery is how often the checker looks back, checkLimit bounds a look.
	checkEvery = 2 * time.Second
	checkLimit = 2 * time.Second
)

// director has ann and ben talk, follows the faults, and keeps what is shown of
// it all. It is the guest of the run.
type director struct {
	cfg    Config
	arena  *arena.Arena
	db     *sql.DB // past the wires
	people []*person
	// arrived is called when ann and ben are there.
	arrived func(context.Context) error

	silence context.CancelFunc // ends the talk
	talk    errgroup.Group
	// checked is closed when the last look back is over.
	checked chan struct{}

	mu      sync.Mutex // owns the fields below
	state   State
	began   time.Time
	fault   time.Time // when the present one began
	looked  time.Time // when the checker looked back
	crowd   *device.Crowd
	outcome outcome
}

func newDirector(cfg Config, a *arena.Arena, db *sql.DB, people []*person) *director {
	return &director{
		cfg: cfg, arena: a, db: db, people: people, began: time.Now(), silence: func() {}, checked: make(chan struct{}),
		state: State{Seed: cfg.Seed, Phase: Talking, Of: cfg.Duration, Faults: []Fault{}},
	}
}

// Arrive is faults.Guest.
func (d *director) Arrive(ctx context.Context, c *device.Crowd) error {
	for _, p := range d.people {
		if err := p.begin(ctx); err != nil {
			return err
		}
	}
	// So that both have a conversation that their screens can open.
	if err := d.people[0].say("hi ben, is this thing safe?"); err != nil {
		return err
	}
	if err := d.await(ctx, func() bool { return d.people[1].counts().Shown > 0 }); err != nil {
		return fmt.Errorf("ann's first message has not come: %w", err)
	}
	d.mu.Lock()
	d.crowd, d.began, d.state.Devices = c, time.Now(), len(c.Devices())
	d.mu.Unlock()
	if err := d.arrived(ctx); err != nil {
		return err
	}
	talk, silence := context.WithCancel(ctx)
	d.silence = silence
	for i, p := range d.people {
		d.talk.Go(func() error { return d.converse(talk, p, uint64(i)) })
	}
	go d.lookBack(talk)
	return nil
}

// await polls until something is so.
func (d *director) await(ctx context.Context, so func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	for !so() {
		if err := pause(ctx, look); err != nil {
			return err
		}
	}
	return nil
}

// converse has a person type until ctx ends.
func (d *director) converse(ctx context.Context, p *person, n uint64) error {
	random := rand.New(rand.NewPCG(d.cfg.Seed, n))
	for i := 1; ; i++ {
		if pause(ctx, time.Second+time.Duration(random.Int64N(int64(2*time.Second)))) != nil {
			return nil //nolint:nilerr // the end was asked for
		}
		if err := p.say(fmt.Sprintf("%s (%d)", d.remark(random), i)); err != nil {
			return err
		}
	}
}

// remark is something to say: of the fault at work, if there is one.
func (d *director) remark(random *rand.Rand) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n := len(d.state.Faults); n > 0 && d.state.Faults[n-1].Err == "" && !d.state.Faults[n-1].Whole {
		return "typed during " + d.state.Faults[n-1].What
	}
	return remarks[random.IntN(len(remarks))]
}

// remarks are short, so that they fit into half of a small terminal.
var remarks = []string{
	"lunch at 12?", "still here", "did you see that?", "what did they kill?", "works for me", "你好，吃了吗？",
	"お元気ですか", "잘 지내요?", "🎉 again!", "ça va bien", "one more", "nothing lost so far", "try and stop me", "back in a second",
}

// Begun is faults.Guest.
func (d *director) Begun(s faults.Step, unacknowledged int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault = time.Now()
	d.state.Faults = append(d.state.Faults, Fault{What: describe(s, s.On(d.arena)), Unacknowledged: unacknowledged})
}

// Over is faults.Guest.
func (d *director) Over(done faults.Done) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := &d.state.Faults[len(d.state.Faults)-1]
	f.For, f.Whole = done.Healed, done.Err == nil
	if done.Err != nil {
		f.Err = done.Err.Error()
	}
}

// Hush is faults.Guest.
func (d *director) Hush() {
	d.silence()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.state.Phase = Settling
}

// Leave is faults.Guest.
func (d *director) Leave(ctx context.Context) error {
	if err := d.talk.Wait(); err != nil {
		return err
	}
	<-d.checked
	ctx, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	c := conversation{
		typed: make(map[string][]string), acked: make(map[string][]uint64),
		history: make(map[string][]line), shown: make(map[string][]line),
	}
	for _, p := range d.people {
		if err := p.settle(ctx); err != nil {
			return err
		}
	}
	names := make([]string, 0, len(d.people))
	for _, p := range d.people {
		var err error
		if c.history[p.name], err = p.history(ctx); err != nil {
			return err
		}
		names = append(names, p.name)
	}
	logged := len(c.history[names[0]])
	show, done := context.WithTimeout(ctx, showLimit)
	defer done()
	_ = d.await(show, func() bool { // what lacks then, the comparison tells
		return !slices.ContainsFunc(d.people, func(p *person) bool { return p.counts().Shown < logged })
	})
	for _, p := range d.people {
		p.mu.Lock()
		c.typed[p.name], c.acked[p.name], c.shown[p.name] = slices.Clone(p.typed), slices.Clone(p.acked), slices.Clone(p.shown)
		p.mu.Unlock()
	}
	o := c.compare(names...)
	d.mu.Lock()
	d.outcome = o
	d.mu.Unlock()
	if len(o.Problems) > 0 {
		return errors.New(strings.Join(o.Problems, "; "))
	}
	return nil
}

// lookBack has the checker look at what was so far, until ctx ends.
func (d *director) lookBack(ctx context.Context) {
	defer close(d.checked)
	for pause(ctx, checkEvery) == nil {
		limited, cancel := context.WithTimeout(ctx, checkLimit)
		found, err := lookBack(limited, d.db, d.crowd.Journals())
		cancel()
		if err != nil {
			continue // the database is what is being hurt; the next look comes
		}
		d.mu.Lock()
		d.state.Checked, d.looked = found, time.Now()
		d.mu.Unlock()
	}
}

// now is the state at this moment.
func (d *director) now() State {
	var people Counts
	for _, p := range d.people {
		c := p.counts()
		people.Typed, people.Acknowledged, people.Shown = people.Typed+c.Typed, people.Acknowledged+c.Acknowledged, people.Shown+c.Shown
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.state
	s.Faults = slices.Clone(s.Faults)
	if s.Verdict != nil {
		return s
	}
	s.People, s.Since = people, time.Since(d.began)
	if d.crowd != nil {
		s.Crowd = tally(d.crowd.Journals())
	}
	if n := len(s.Faults); n > 0 && s.Faults[n-1].Err == "" && !s.Faults[n-1].Whole {
		s.Faults[n-1].For = time.Since(d.fault)
	}
	s.Checked.Ago = -1
	if !d.looked.IsZero() {
		s.Checked.Ago = time.Since(d.looked)
	}
	return s
}

// judge ends the state with a verdict.
func (d *director) judge(r *faults.Result) State {
	s := d.now()
	d.mu.Lock()
	defer d.mu.Unlock()
	s.Phase, s.Verdict = Judged, verdict(r, d.outcome, d.cfg.Replay)
	s.Checked = Checked{Lost: lost(r), Doubled: doubled(r), Reordered: reordered(r), Final: true}
	d.state = s
	return s
}
