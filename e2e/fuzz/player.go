package fuzz

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/idna"
)

// player does the steps of one case, writes them down, and judges what comes back. It
// belongs to the case's goroutine.
//
// Its connections find things, too, so the mutex owns the trace's steps.
type player struct {
	run     *run
	secrets secrets
	conns   map[int]*conn

	mu    sync.Mutex
	trace *Trace
}

func (r *run) player(t *Trace) *player {
	return &player{run: r, trace: t, conns: make(map[int]*conn)}
}

func (p *player) find(rule, where, format string, args ...any) {
	p.mu.Lock()
	t := p.trace
	if t != nil {
		t = new(*p.trace)
		t.Steps = slices.Clone(t.Steps)
	}
	p.mu.Unlock()
	p.run.find(t, rule, where, format, args...)
}

// do does a step, writes it down, and returns the secret that came of it, if any.
func (p *player) do(ctx context.Context, s Step) (learned string) {
	at := p.note(s)
	learned = p.play(ctx, s)
	p.mu.Lock()
	p.trace.Steps[at].Value = learned
	p.mu.Unlock()
	return learned
}

// again does a step of an earlier system.
func (p *player) again(ctx context.Context, s Step) {
	s.Pieces = p.secrets.replace(s.Pieces)
	p.note(s)
	p.secrets.add(s.Value, p.play(ctx, s))
}

// note writes a step down and returns its place.
func (p *player) note(s Step) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.trace.Steps = append(p.trace.Steps, s)
	return len(p.trace.Steps) - 1
}

func (p *player) play(ctx context.Context, s Step) (learned string) {
	switch {
	case s.Do == doExchange:
		answers := p.exchange(ctx, s)
		if len(answers) > 0 && s.Learn != "" {
			return p.learn(ctx, s.Learn, answers[len(answers)-1])
		}
	case s.Do == doCall:
		p.call(ctx, s)
	case s.Do == doOpen:
		c, err := p.run.open(ctx, p, p.run.cfg.Target.Chats[index(s.At, len(p.run.cfg.Target.Chats))])
		if err != nil {
			if ctx.Err() == nil {
				p.find(ruleUnanswered, s.At, "cannot connect: %v", err)
			}
			return ""
		}
		p.conns[s.Conn] = c
	case p.conns[s.Conn] == nil:
	case s.Do == doWrite:
		for i, piece := range s.Pieces {
			if i > 0 {
				pause(ctx, s.Pause)
			}
			p.conns[s.Conn].write(piece)
		}
	case s.Do == doAwait:
		p.conns[s.Conn].await(ctx)
	case s.Do == doShut:
		p.conns[s.Conn].shut(ctx)
	case s.Do == doClose:
		p.conns[s.Conn].close()
		delete(p.conns, s.Conn)
	}
	return ""
}

// end closes what a case left open.
func (p *player) end() {
	for _, c := range p.conns {
		c.close()
	}
}

// index is the number behind a server's name: "chat 1" is 1.
func index(at string, of int) int {
	_, n, _ := strings.Cut(at, " ")
	return atoi(n) % max(of, 1)
}

var digits = regexp.MustCompile(`\b\d{6}\b`)

// learn reads a secret out of an answer, or out of the mail that it led to.
func (p *player) learn(ctx context.Context, what string, a answer) string {
	if a.status >= 300 {
		return ""
	}
	kind, address, _ := strings.Cut(what, " ")
	if kind == "token" {
		var reply struct{ Token string }
		_ = json.Unmarshal(a.body, &reply) // no token: the schema says so
		return reply.Token
	}
	for until := time.Now().Add(p.run.cfg.Patience); ctx.Err() == nil; pause(ctx, 5*time.Millisecond) {
		for _, box := range boxes(address) {
			if text, ok := p.run.cfg.Target.Mail(box); ok {
				p.shown("the mail", shownDraft(strings.ReplaceAll(text, "\r\n", "\n")))
				return digits.FindString(text)
			}
		}
		if time.Now().After(until) {
			p.find(ruleUnanswered, "the mail", "a code was accepted, and no mail came to %q", address)
			break
		}
	}
	return ""
}

// boxes are the addresses that a mail for an address may be found at: mail goes to the
// domain as DNS has it.
func boxes(address string) []string {
	address = strings.TrimSpace(address)
	at := strings.LastIndexByte(address, '@')
	domain, err := idna.Lookup.ToASCII(address[at+1:])
	if err != nil {
		return []string{address}
	}
	return []string{address, address[:at+1] + domain}
}

// worker does one kind of cases, one after the other.
type worker struct {
	run    *run
	number uint64
	self   *person
}

// kind is a kind of cases.
type kind struct {
	name, help string
	// share is how many workers do it, in hundredths of Config.Workers.
	share int
	// self says that it needs somebody of its own, whom it may log out.
	self bool
	play func(ctx context.Context, w *worker, p *player, v values)
}

// kinds are all of them.
var kinds []kind

func init() {
	kinds = []kind{
		{"operations", "requests of the API, valid, odd and hostile", 100, true, operations},
		{"newcomers", "people with odd names and addresses register, log in and are seen", 50, true, newcomers},
		{"http", "what is almost HTTP: cut, spoilt, pipelined, slow", 50, true, almostHTTP},
		{"requests", "requests of chat.proto, valid, odd and hostile", 100, false, requests},
		{"devices", "several connections of one person at the same time", 50, false, devices},
		{"frames", "what is almost chat.proto: before Hello, twice, cut, spoilt, slow", 50, false, almostFrames},
		{"relay", "calls of relay.proto", 50, false, relay},
	}
}

// Kinds lists the kinds of cases with what they are.
func Kinds() (out []string) {
	for _, k := range kinds {
		out = append(out, fmt.Sprintf("%-11s %s", k.name, k.help))
	}
	return out
}

func (k kind) chosen(only []string) bool { return len(only) == 0 || slices.Contains(only, k.name) }

// loop does cases until ctx ends.
func (w *worker) loop(ctx context.Context, k kind) {
	for n := uint64(0); ctx.Err() == nil; n++ {
		v := newValues(w.run.cfg.Seed, w.number, n)
		if err := w.renew(ctx, k); err != nil {
			if ctx.Err() == nil {
				w.run.find(nil, ruleHonest, "registration", "%v", err)
				pause(ctx, time.Second)
			}
			continue
		}
		t := &Trace{Kind: k.name, Seed: w.run.cfg.Seed, Worker: w.number, N: n, Secrets: w.run.world.secrets()}
		if w.self != nil {
			t.Secrets[w.self.token] = "self"
		}
		p := w.run.player(t)
		k.play(ctx, w, p, v)
		p.end()
		w.run.cases.Add(1)
	}
}

// renew gives the worker a session, if the one of before has ended: a case may log out.
func (w *worker) renew(ctx context.Context, k kind) error {
	if !k.self || w.self != nil && w.run.alive(ctx, w.self) {
		return nil
	}
	v := newValues(w.run.cfg.Seed, w.number, 1<<39+uint64(time.Now().UnixNano())%(1<<38))
	made, err := w.run.register(ctx, "w"+strconv.FormatUint(w.number, 10)+v.word())
	if err == nil {
		w.self = made
	}
	return err
}
