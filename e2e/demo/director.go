package demo

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/msrchat/msrchat/proof/check"
	"github.com/msrchat/msrchat/proof/device"

	"github.com/msrchat/msrchat/e2e/arena"
	"github.com/msrchat/msrchat/e2e/faults"
)

// checkEvery is how often the checker runs, and how long one check may take.
const checkEvery = 2 * time.Second

// director has ann and ben talk, follows the faults, and keeps what is shown of it
// all. It is the guest of the run, which calls it from one goroutine.
type director struct {
	cfg   Config
	arena *arena.Arena
	db    *sql.DB // past the wires

	people       *device.Crowd // what ann and ben are shown
	conversation uint64        // theirs
	senders      [2]*exec.Cmd  // what sends for them
	sent         [2]<-chan struct{}
	silence      context.CancelFunc
	talk         errgroup.Group // until silence

	mu     sync.Mutex // owns the fields below, and the output until the verdict
	inputs [2]io.WriteCloser
	typed  [2][]uint64 // the texts' digests
	crowd  *device.Crowd
	state  State
	// report is of ann and ben, byHand counts what somebody typed into their
	// terminals; set when they leave.
	report check.Report
	byHand int
}

// tell prints what happens, where no pane shows it. The caller holds mu.
func (d *director) tell(format string, args ...any) {
	if !d.cfg.Panes {
		fmt.Fprintf(d.cfg.Output, "%6.1f s  %s\n", time.Since(d.state.Began).Seconds(), fmt.Sprintf(format, args...))
	}
}

// count tells the counters.
func (d *director) count(s State) {
	c, b := s.Crowd.plus(s.People), s.Broken
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tell("typed %d, acknowledged %d, shown %d; lost %d, doubled %d, reordered %d", c[0], c[1], c[2], b[0], b[1], b[2])
}

// Arrive is faults.Guest.
func (d *director) Arrive(ctx context.Context, c *device.Crowd) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.crowd, d.state.Began = c, time.Now()
	ctx, d.silence = context.WithCancel(ctx)
	for i := range names {
		d.talk.Go(func() error { return d.converse(ctx, i) })
	}
	d.talk.Go(func() error { return d.checkSoFar(ctx, c) })
	return nil
}

// converse has one of the two type until ctx ends: about the active fault, if any.
func (d *director) converse(ctx context.Context, person int) error {
	random := rand.New(rand.NewPCG(d.cfg.Seed, uint64(person)))
	for i := 1; pause(ctx, time.Second+time.Duration(random.Int64N(int64(2*time.Second)))); i++ {
		remark := remarks[random.IntN(len(remarks))]
		d.mu.Lock()
		if f := d.state.active(); f != nil {
			remark = "typed during " + f.What
		}
		d.mu.Unlock()
		if err := d.say(person, fmt.Sprintf("%s (%d)", remark, i)); err != nil {
			return err
		}
	}
	return nil
}

// remarks are short enough for half of a small terminal.
var remarks = []string{
	"lunch at 12?", "still here", "did you see that?", "what did they kill?", "works for me", "你好，吃了吗？",
	"お元気ですか", "잘 지내요?", "🎉 again!", "ça va bien", "one more", "nothing lost so far", "try and stop me",
}

// checkSoFar checks what there is so far, until ctx ends. The log has all that the
// copied journals have, and more, which breaks no promise that is counted.
func (d *director) checkSoFar(ctx context.Context, c *device.Crowd) error {
	for pause(ctx, checkEvery) {
		limited, cancel := context.WithTimeout(ctx, checkEvery)
		run, err := check.Read(limited, d.db, upTo(math.MaxUint64, c.Journals()))
		cancel()
		if err == nil { // or a fault stops the database; the next check comes
			run.Interrupted = true
			d.mu.Lock()
			d.state.Broken, d.state.Looked = broken(run.Check()), time.Now()
			d.mu.Unlock()
		}
	}
	return nil
}

// Begun is faults.Guest.
func (d *director) Begun(s faults.Step, unacknowledged int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	what := strings.Join(strings.Fields(s.Kind.Name+" "+s.Variant+" "+s.On(d.arena)), " ")
	if s.Kind.Family() == "kill" {
		what = "kill -9 " + s.On(d.arena)
	}
	d.state.Faults = append(d.state.Faults, Fault{What: what, Unacknowledged: unacknowledged, Began: time.Now()})
	d.tell("%s: %d messages unacknowledged", what, unacknowledged)
}

// Over is faults.Guest.
func (d *director) Over(done faults.Done) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := &d.state.Faults[len(d.state.Faults)-1]
	f.Result = "whole after " + seconds(done.Healed)
	if done.Err != nil {
		f.Result = fmt.Sprint(notHealed, ": ", done.Err)
	}
	d.tell("%s: %s", f.What, f.Result)
}

// StopTyping is faults.Guest.
func (d *director) StopTyping() {
	d.silence()
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.state.Settling {
		d.state.Settling = true
		d.tell("nobody types any more; the last messages arrive")
	}
}

// Leave is faults.Guest. What somebody types by hand after the log was read does
// not count.
func (d *director) Leave(ctx context.Context) error {
	settle, cancel := context.WithTimeout(ctx, waitLimit)
	defer cancel()
	if err := errors.Join(d.talk.Wait(), d.settle(settle)); err != nil {
		return err
	}
	quiet, err := d.people.Quiet(settle, arena.Heartbeat)
	if err != nil {
		return err
	}
	run, err := check.Read(ctx, d.db, d.people.Journals())
	if err != nil {
		return err
	}
	pause(ctx, arena.Heartbeat+poll) // what the devices may take
	run.Quiet, run.Heartbeat = quiet, arena.Heartbeat
	d.mu.Lock()
	defer d.mu.Unlock()
	report, byHand := judge(run, d.typed, d.cfg.Panes)
	d.report, d.byHand = *report, byHand
	return report.Err()
}

// now is the state at this moment.
func (d *director) now() State {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.state
	s.Faults = slices.Clone(s.Faults)
	typed := len(d.typed[0]) + len(d.typed[1])
	ann, ben := d.people.Devices()[0].Top(d.conversation), d.people.Devices()[1].Top(d.conversation)
	s.People = Counts{typed, min(typed, int(max(ann, ben))), int(ann + ben)} // numbers have no gaps
	if d.crowd != nil {
		s.Crowd = tally(d.crowd.Journals())
	}
	return s
}

// conclude is the state at the end.
func (d *director) conclude(r *faults.Result) State {
	s := d.now()
	s.Kept, s.Broken, s.Looked = r.Err() == nil, broken(r.Report).plus(broken(&d.report)), time.Now()
	if s.Kept {
		s.Verdict = []string{
			fmt.Sprintf("NOTHING WAS LOST, DOUBLED OR REORDERED: %d acknowledged messages; faults: %d",
				r.Report.Acked+d.report.Acked, len(r.Done)),
			fmt.Sprintf("%d devices: %d messages, each in MariaDB once, numbered without a gap, in the order typed;",
				r.Report.Devices, r.Report.Acked),
			fmt.Sprintf("they showed %d: each once on both screens of its conversation, in order", r.Report.Shown),
			fmt.Sprintf("ann and ben: numbers 1 to %d, shown to both once, in order; %d of them typed by hand",
				d.report.Logged, d.byHand),
		}
	} else {
		s.Verdict = append([]string{"A PROMISE WAS BROKEN"}, strings.Split(r.Err().Error(), "\n")...)
		if r.Kept != "" {
			s.Verdict = append(s.Verdict, "journals, logs and the plan are in "+r.Kept)
		}
	}
	s.Verdict = append(s.Verdict, "the same faults again: "+d.cfg.Replay)
	return s
}
