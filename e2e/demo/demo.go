// Package demo shows in a minute that msrChat loses nothing: two people chat in
// the real terminal program while the processes of a running system are killed,
// and the checker's verdict is shown below them. See ./justw chaos-demo.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/proof/account"
	"github.com/msrchat/msrchat/proof/device"
	"github.com/msrchat/msrchat/proof/journal"
	"github.com/msrchat/msrchat/shared/backend"
	"github.com/msrchat/msrchat/shared/conversation"
	"github.com/msrchat/msrchat/shared/planted"
	"github.com/msrchat/msrchat/tools/mailbox"

	"github.com/msrchat/msrchat/e2e/arena"
	"github.com/msrchat/msrchat/e2e/faults"
)

// Config says what to show.
type Config struct {
	// Root is the checkout that the servers are built from, Bin a folder where
	// arena.Build has put them already; one of the two.
	Root, Bin string
	// Msrchat is the program that ann and ben use.
	Msrchat string
	// Panes says that it runs in a tmux that InTmux started; otherwise it prints
	// lines.
	Panes bool
	// Kinds of faults are done, one every Interval, for Duration, as Seed decides.
	Kinds              []faults.Kind
	Duration, Interval time.Duration
	Seed               uint64
	// Replay is the command that does the same again.
	Replay string
	// Bug is planted in the servers, for the demo's own test.
	Bug planted.Bug
	// Output gets what happens, and the verdict, which panes leave to standard error.
	Output io.Writer
}

const (
	// devices and rate of the crowd that talks beside ann and ben: enough for some
	// twenty unacknowledged messages at each fault.
	devices = 20
	rate    = 50
	// refresh is how often the pane is drawn, countEvery how often lines have counters.
	refresh    = 200 * time.Millisecond
	countEvery = 5 * time.Second
	// grace is how long keys do not end it after the verdict: somebody may be
	// typing.
	grace = time.Second
	ctrlC = 3 // as a terminal sends it
	// poll is how often a condition is polled, waitLimit how long it may take.
	poll      = 50 * time.Millisecond
	waitLimit = 60 * time.Second
	// ExitLeft is the exit code of ErrLeft.
	ExitLeft = 130
)

// ErrLeft: somebody ended it before the verdict.
var ErrLeft = errors.New("left before the verdict")

// Run shows the demo and says whether the promises were kept. An error says that
// there is no verdict.
func Run(ctx context.Context, cfg Config) (kept bool, err error) {
	var mailing sync.WaitGroup
	defer mailing.Wait()
	ctx, end := context.WithCancel(ctx)
	defer end()
	mail, err := mailbox.New(mailbox.Config{SMTPBind: "127.0.0.1:0", HTTPBind: "127.0.0.1:0"})
	if err != nil {
		return false, err
	}
	mailing.Go(func() { _ = mail.Run(ctx) }) // where it failed, no code comes
	a, err := arena.Start(ctx, arena.Config{
		Root: cfg.Root, Bin: cfg.Bin, SMTP: mail.SMTPAddr(), Bug: cfg.Bug, Output: cfg.Output,
	})
	if err != nil {
		return false, err
	}
	defer a.Close()
	db, err := account.Open(ctx, a.Database())
	if err != nil {
		return false, err
	}
	defer db.Close()
	d := &director{cfg: cfg, arena: a, db: db, state: State{Seed: cfg.Seed, Began: time.Now(), Of: cfg.Duration}}
	if err := d.invite(ctx, mail); err != nil {
		return false, fmt.Errorf("bring ann and ben: %w", err)
	}
	defer d.leave(end)
	var keys <-chan byte
	if cfg.Panes {
		if keys, err = d.open(ctx); err != nil {
			return false, err
		}
	}
	return d.direct(ctx, end, keys)
}

// direct does the faults and shows them, until there is a verdict and whoever
// watches has seen it.
func (d *director) direct(ctx context.Context, end func(), keys <-chan byte) (kept bool, err error) {
	enough, judgeNow := context.WithCancel(ctx)
	defer judgeNow()
	var result *faults.Result
	ran := make(chan error, 1)
	go func() {
		var err error
		result, err = faults.In(ctx, d.arena, faults.Config{
			Steps:    faults.Plan(d.cfg.Seed, d.cfg.Kinds, max(1, int(d.cfg.Duration/d.cfg.Interval))),
			Interval: d.cfg.Interval, Duration: d.cfg.Duration, Rate: rate, Clients: devices, Seed: d.cfg.Seed,
			Bug: d.cfg.Bug, Guest: d, Enough: enough.Done(),
			Evidence: filepath.Join(os.TempDir(), fmt.Sprintf("msrchat-chaos-demo-%d-%d", d.cfg.Seed, os.Getpid())),
		})
		ran <- err
	}()
	show, every := d.count, countEvery
	if d.cfg.Panes {
		show, every = draw, refresh
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for done := false; !done; {
		select {
		case <-ticker.C:
			show(d.now())
		case key := <-keys:
			switch key {
			case ctrlC:
				end()
			case 'q':
				judgeNow()
			}
		case err := <-ran:
			if ctx.Err() != nil {
				return false, ErrLeft
			}
			if err != nil {
				return false, err
			}
			done = true
		}
	}
	final := d.conclude(result)
	show(final)
	for since := time.Now(); d.cfg.Panes && ctx.Err() == nil; {
		select {
		case key := <-keys:
			if key == ctrlC || time.Since(since) > grace {
				end()
			}
		case <-ctx.Done():
		}
	}
	out := d.cfg.Output
	if d.cfg.Panes {
		out = os.Stderr
	}
	fmt.Fprintf(out, "\n%s\n", strings.Join(final.Verdict, "\n  "))
	return final.Kept, nil
}

var names = []string{"ann", "ben"}

// password of both, in a system that lives for a minute on loopback.
const password = "a password for the demo"

// invite registers ann and ben at the gate as people do, by codes from their mails.
// Each has a device that keeps a journal of what it shows, and a profile whose
// outbox their terminal shares with the msrchat that sends what the director types.
func (d *director) invite(ctx context.Context, mail *mailbox.Mailbox) error {
	gate, err := client.NewGate(d.arena.Gate(), nil)
	if err != nil {
		return err
	}
	sixDigits := regexp.MustCompile(`\b\d{6}\b`)
	both := make([]account.Account, len(names))
	for i, name := range names {
		email, code := name+"@example.org", ""
		if err := gate.Code(ctx, email); err != nil {
			return err
		}
		if err := await(ctx, "the mail with "+name+"'s code", func() bool {
			m, _ := mail.Newest(email)
			code = sixDigits.FindString(m.Text)
			return code != ""
		}); err != nil {
			return err
		}
		reply, err := gate.Register(ctx, client.Registration{
			Email: email, Name: name, Password: password, Code: code, Device: "demo",
		})
		if err != nil {
			return err
		}
		both[i] = account.Account{ID: reply.Session.User.ID, Name: name, Sessions: []client.Session{reply.Session}}
		login := d.msrchat(ctx, name, "login", "--name", name, "--password-stdin")
		login.Stdin = strings.NewReader(password + "\n")
		if out, err := login.CombinedOutput(); err != nil {
			return fmt.Errorf("msrchat login: %w: %s", err, out)
		}
		d.senders[i] = d.msrchat(ctx, name, "send", "--to", names[1-i], "--lines", "--timeout", "2m")
		if d.inputs[i], err = d.senders[i].StdinPipe(); err != nil {
			return err
		}
		if d.sent[i], err = backend.Launch(d.senders[i]); err != nil {
			return err
		}
	}
	pair := conversation.Pair{A: both[0].ID, B: both[1].ID}
	ids, err := account.OpenDirect(ctx, d.db, []conversation.Pair{pair})
	if err != nil {
		return err
	}
	d.conversation = ids[0]
	if d.people, err = device.NewCrowd(ctx, device.CrowdOptions{
		Gate: gate, People: both, Conversations: map[uint64]conversation.Pair{ids[0]: pair},
	}); err != nil {
		return err
	}
	return d.say(0, "hi ben, is this thing safe?") // so that their terminals have a conversation to open
}

// msrchat is a call of the program under a profile.
func (d *director) msrchat(ctx context.Context, profile string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "env", append([]string{
		"XDG_STATE_HOME=" + d.arena.Dir(), "MSRCHAT_GATE=" + d.arena.Gate(), "MSRCHAT_PROFILE=" + profile,
		"MSRCHAT_DEBUG=", "MSRCHAT_CA_FILE=", d.cfg.Msrchat,
	}, args...)...)
}

// say has one of them type a text that differs from all their others.
func (d *director) say(person int, text string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.typed[person] = append(d.typed[person], journal.Digest(text))
	_, err := io.WriteString(d.inputs[person], text+"\n")
	return err
}

// settle waits until all that was typed, by the director and by hand, is sent.
func (d *director) settle(ctx context.Context) error {
	for i, name := range names {
		_ = d.inputs[i].Close()
		<-d.sent[i] // which does not wait forever
		if end := d.senders[i].ProcessState; !end.Success() {
			return fmt.Errorf("%s's msrchat send: %v", name, end)
		}
		if err := await(ctx, name+"'s outbox to be sent", func() bool {
			out, err := d.msrchat(ctx, name, "--json", "outbox").Output()
			return err == nil && !strings.Contains(string(out), `"state":"queued"`)
		}); err != nil {
			return err
		}
	}
	return nil
}

// leave ends what sends for ann and ben, and their devices.
func (d *director) leave(end func()) {
	if d.cfg.Panes {
		fmt.Print("\x1b[H\x1b[J… ending all that was started") // which takes up to ten seconds
	}
	end()
	for _, sent := range d.sent {
		<-sent
	}
	d.people.Close()
}

// await polls until a condition holds.
func await(ctx context.Context, what string, holds func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, waitLimit)
	defer cancel()
	for !holds() {
		if !pause(ctx, poll) {
			return fmt.Errorf("waited for %s: %w", what, ctx.Err())
		}
	}
	return nil
}

// pause waits; false says that ctx has ended.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
