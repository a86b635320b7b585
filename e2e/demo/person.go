package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/msrchat/msrchat/tools/mailbox"
)

// person is ann or ben: a profile of the real msrchat program.
type person struct {
	name, other string
	program     string   // msrchat
	env         []string // where its profiles are, and the gate

	sender, tail *child
	input        io.WriteCloser // what the sender reads; Talk's goroutine owns it

	mu    sync.Mutex // owns the fields below
	typed []string   // by the director
	acked []uint64   // the numbers that the sender printed, when it ended
	shown []line     // what the tail printed
	// inLog are those of typed that the tail showed: the sender tells of
	// acknowledgements only in the end.
	inLog map[string]bool
}

// line is a message as msrchat prints it with --json.
type line struct {
	Seq  uint64 `json:"seq"`
	From string `json:"from"`
	Text string `json:"text"`
}

// look is how often a condition is looked at.
const look = 50 * time.Millisecond

// command is a call of msrchat under the person's profile.
func (p *person) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, p.program, append([]string{"--profile", p.name}, args...)...)
	cmd.Env = append(os.Environ(), p.env...)
	return cmd
}

// run runs a command to its end and returns what it printed.
func (p *person) run(ctx context.Context, stdin string, args ...string) (string, error) {
	var stdout, stderr strings.Builder
	cmd := p.command(ctx, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	c, err := start(cmd)
	if err == nil {
		<-c.done
		err = c.err
	}
	if err != nil {
		return "", fmt.Errorf("msrchat --profile %s %s: %w: %s", p.name, args, err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

var sixDigits = regexp.MustCompile(`\b\d{6}\b`)

// register makes the account as people do, by a code from a mail.
func (p *person) register(ctx context.Context, mail *mailbox.Mailbox) error {
	email := p.name + "@example.org"
	if _, err := p.run(ctx, "", "code", email); err != nil {
		return err
	}
	digits := ""
	for digits == "" {
		if m, ok := mail.Newest(email); ok {
			digits = sixDigits.FindString(m.Text)
		}
		if err := pause(ctx, look); err != nil {
			return fmt.Errorf("the mail with the code for %s: %w", p.name, err)
		}
	}
	_, err := p.run(ctx, "a password of "+p.name+"\n",
		"register", "--email", email, "--name", p.name, "--code", digits, "--password-stdin")
	return err
}

// begin starts what sends for the person and what prints what is shown to them.
// Both end with ctx.
func (p *person) begin(ctx context.Context) (err error) {
	tail := p.command(ctx, "--json", "tail")
	p.inLog = make(map[string]bool)
	tail.Stdout = &lines{take: p.show, mu: &p.mu}
	if p.tail, err = start(tail); err != nil {
		return err
	}
	send := p.command(ctx, "--json", "send", "--to", p.other, "--lines", "--timeout", "5m")
	send.Stdout = &lines{take: func(l line) { p.acked = append(p.acked, l.Seq) }, mu: &p.mu}
	if p.input, err = send.StdinPipe(); err != nil {
		return err
	}
	p.sender, err = start(send)
	return err
}

// show takes a line of the tail, with mu held.
func (p *person) show(l line) {
	p.shown = append(p.shown, l)
	if l.From == p.name && slices.Contains(p.typed, l.Text) {
		p.inLog[l.Text] = true
	}
}

// lines takes what a program prints, a message a line.
type lines struct {
	take func(line) // called with mu held
	mu   sync.Locker
	rest []byte
}

func (w *lines) Write(b []byte) (int, error) {
	w.rest = append(w.rest, b...)
	for {
		text, rest, whole := bytes.Cut(w.rest, []byte("\n"))
		if !whole {
			return len(b), nil
		}
		w.rest = rest
		var l line
		if err := json.Unmarshal(text, &l); err != nil {
			return 0, fmt.Errorf("msrchat printed %q: %w", text, err)
		}
		w.mu.Lock()
		w.take(l)
		w.mu.Unlock()
	}
}

// say has the sender send a text.
func (p *person) say(text string) error {
	p.mu.Lock()
	p.typed = append(p.typed, text)
	p.mu.Unlock()
	if _, err := io.WriteString(p.input, text+"\n"); err != nil {
		return fmt.Errorf("%s's msrchat send has ended: %w", p.name, err)
	}
	return nil
}

// counts are what the director had the person type, and what they were shown.
func (p *person) counts() Counts {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Counts{Typed: len(p.typed), Acknowledged: len(p.inLog), Shown: len(p.shown)}
}

// queued is how msrchat's outbox marks what waits, unlike what was refused.
const queued = `"state":"queued"`

// settle waits until everything that was typed for the person is acknowledged,
// and nothing that was typed in their terminal waits.
func (p *person) settle(ctx context.Context) error {
	if err := p.input.Close(); err != nil {
		return err
	}
	select {
	case <-p.sender.done:
	case <-ctx.Done():
		return fmt.Errorf("%s's messages wait for their acknowledgement: %w", p.name, ctx.Err())
	}
	if err := p.sender.err; err != nil {
		return fmt.Errorf("%s's msrchat send: %w", p.name, err)
	}
	for {
		outbox, err := p.run(ctx, "", "--json", "outbox")
		if err != nil || !strings.Contains(outbox, queued) {
			return err
		}
		if err := pause(ctx, look); err != nil {
			return fmt.Errorf("%s's outbox still has %s: %w", p.name, outbox, err)
		}
	}
}

// history is the conversation as the service has it.
func (p *person) history(ctx context.Context) (all []line, err error) {
	out, err := p.run(ctx, "", "--json", "history", "--with", p.other)
	if err != nil {
		return nil, err
	}
	for text := range strings.Lines(out) {
		var l line
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			return nil, fmt.Errorf("%s's history: %w", p.name, err)
		}
		all = append(all, l)
	}
	return all, nil
}

// leave ends the person's programs.
func (p *person) leave() {
	p.sender.kill()
	p.tail.kill()
}

// pause waits. Its error is that of a context that has ended.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return errors.Join(ctx.Err(), context.Cause(ctx))
	}
}
