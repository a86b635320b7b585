// Package demo shows in a minute that msrChat loses nothing: two people chat in
// the real terminal program while the processes of a running system are killed,
// and the checker's verdict stands below them. See ./justw chaos-demo.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/msrchat/msrchat/proof/account"
	"github.com/msrchat/msrchat/tools/mailbox"

	"github.com/msrchat/msrchat/e2e/arena"
	"github.com/msrchat/msrchat/e2e/faults"
)

// Config says what to show.
type Config struct {
	// Root is the checkout that the servers are built from, Bin a folder where
	// arena.Build has put them already; one of the two.
	Root, Bin string
	// Msrchat is the program that ann and ben use, Self this one, for the
	// director's pane.
	Msrchat, Self string
	Seed          uint64
	// Replay is the command that does the same again.
	Replay string
	// Kinds of faults are done, one every Interval, for Duration.
	Kinds              []faults.Kind
	Duration, Interval time.Duration
	// Plain leaves out tmux.
	Plain bool
	// Output gets the progress at the start and the verdict.
	Output io.Writer
}

const (
	// devices and rate of the crowd that talks beside ann and ben: enough for some
	// twenty unacknowledged messages at each fault.
	devices = 20
	rate    = 50
	// refresh is how often the screen is made anew.
	refresh = 200 * time.Millisecond
	// grace is how long keys do not leave after the verdict: somebody may type.
	grace = time.Second
)

// ErrLeft: somebody ended it before the verdict.
var ErrLeft = errors.New("left before the verdict")

// Run shows the demo. Whether the promises were kept is in the verdict; an error
// says that there is none.
func Run(ctx context.Context, cfg Config) (*Verdict, error) {
	// A closed terminal ends it like Ctrl-C.
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGHUP)
	defer stop()
	mail, err := mailbox.New(mailbox.Config{SMTPBind: "127.0.0.1:0", HTTPBind: "127.0.0.1:0"})
	if err != nil {
		return nil, err
	}
	post, stopMail := context.WithCancel(context.Background())
	delivered := make(chan error, 1)
	go func() { delivered <- mail.Run(post) }()
	defer func() {
		stopMail()
		<-delivered //nolint:errcheck // a mailbox that failed has cost the run its codes
	}()
	progress := startProgress(cfg.Output)
	defer progress.end()
	a, err := arena.Start(ctx, arena.Config{Root: cfg.Root, Bin: cfg.Bin, SMTP: mail.SMTPAddr(), Output: progress})
	if err != nil {
		return nil, left(ctx, err)
	}
	defer a.Close()
	d, err := prepare(ctx, cfg, a, mail, progress)
	if err != nil {
		return nil, left(ctx, err)
	}
	defer d.close()
	return d.direct(ctx, progress)
}

// left tells an end that somebody wanted from a failure.
func left(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return ErrLeft
	}
	return err
}

// prepare registers ann and ben.
func prepare(ctx context.Context, cfg Config, a *arena.Arena, mail *mailbox.Mailbox, progress *progress) (*director, error) {
	home := filepath.Join(a.Dir(), "people")
	if err := os.Mkdir(home, 0o700); err != nil {
		return nil, err
	}
	env := []string{"XDG_STATE_HOME=" + home, "MSRCHAT_GATE=" + a.Gate(), "MSRCHAT_PROFILE=", "MSRCHAT_DEBUG=", "MSRCHAT_CA_FILE="}
	began := time.Now()
	people := []*person{
		{name: "ann", other: "ben", program: cfg.Msrchat, env: env},
		{name: "ben", other: "ann", program: cfg.Msrchat, env: env},
	}
	for _, p := range people {
		if err := p.register(ctx, mail); err != nil {
			return nil, err
		}
	}
	progress.step("register ann and ben", began)
	db, err := account.Open(ctx, a.Database())
	if err != nil {
		return nil, err
	}
	return newDirector(cfg, a, db, people), nil
}

// close ends what the director has.
func (d *director) close() {
	for _, p := range d.people {
		p.leave()
	}
	_ = d.db.Close()
}

// direct does the faults and shows them, until there is a verdict and whoever
// watches has seen it.
func (d *director) direct(ctx context.Context, progress *progress) (*Verdict, error) {
	life, end := context.WithCancel(ctx)
	defer end()
	began := time.Now()
	opened := make(chan display, 1)
	d.arrived = func(ctx context.Context) error {
		progress.step(fmt.Sprintf("bring %d devices online", devices), began)
		progress.end()
		out, err := d.open(ctx)
		opened <- out
		return err
	}
	type reply struct {
		result *faults.Result
		err    error
	}
	ran, enough := make(chan reply, 1), make(chan struct{})
	go func() {
		result, err := faults.In(life, d.arena, d.config(enough))
		ran <- reply{result, err}
	}()
	ticker := time.NewTicker(refresh)
	defer ticker.Stop()
	out := display{show: func(State) {}, close: func() {}}
	defer func() { out.close() }()
	for {
		select {
		case out = <-opened:
		case <-ticker.C:
			out.show(d.now())
		case <-out.gone:
			end()
			out.gone = nil
		case key := <-out.keys:
			if key == "ctrl+c" {
				end()
			}
			if key == "q" && enough != nil {
				close(enough)
				enough = nil
			}
		case r := <-ran:
			if life.Err() != nil {
				return nil, ErrLeft
			}
			if r.err != nil {
				return nil, r.err
			}
			s := d.judge(r.result)
			out.show(s)
			if out.keys != nil {
				out.watched(ctx)
				out.close()
				printVerdict(d.cfg.Output, s) // to stay in the terminal
			}
			return s.Verdict, nil
		}
	}
}

func (d *director) config(enough <-chan struct{}) faults.Config {
	return faults.Config{
		Steps: faults.Plan(d.cfg.Seed, d.cfg.Kinds, max(1, int(d.cfg.Duration/d.cfg.Interval))), Interval: d.cfg.Interval, Duration: d.cfg.Duration,
		Rate: rate, Clients: devices, Seed: d.cfg.Seed, Guest: d, Enough: enough,
		Evidence: filepath.Join(os.TempDir(), fmt.Sprintf("msrchat-chaos-demo-%d-%d", d.cfg.Seed, os.Getpid())),
	}
}
