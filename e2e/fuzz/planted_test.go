package fuzz

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/frame"
)

// planted is a fault between the fuzzer and real servers: in the bytes of the gate's
// answers, or in a frame of a chat server.
type planted struct {
	name, rule string
	// bytes are replaced by others of the same length; hold keeps every byte back.
	was, is string
	hold    bool
	frames  spoiler
}

// spoiler says what comes instead of a frame, and whether the connection ends after it.
type spoiler func(f *chatv1.ServerFrame) (instead []*chatv1.ServerFrame, cut bool)

var plantedFaults = []planted{
	{name: "an answer 500", rule: ruleServerError, was: "HTTP/1.1 422", is: "HTTP/1.1 500"},
	{name: "503 without a time", rule: ruleServerError, was: "HTTP/1.1 422", is: "HTTP/1.1 503"},
	{name: "a status that the document lacks", rule: ruleUndocumented, was: "HTTP/1.1 422", is: "HTTP/1.1 418"},
	{name: "a member of the wrong type", rule: ruleUndocumented, was: `"code":"invalid"`, is: `"code":123456789`},
	{name: "an escape in a refusal", rule: ruleShown, was: "Unprocessable", is: `\u001b[2Jxxxx`},
	{name: "a refusal that repeats", rule: ruleRepeats, was: "Unprocessable", is: canary + "xxxx"},
	{name: "an invisible character in a refusal", rule: ruleShown, was: "urn:msrchat", is: `urn:m\u3164`},
	{name: "no answer", rule: ruleUnanswered, hold: true},
	{name: "a frame is lost", rule: ruleUnanswered, frames: change(func(*chatv1.ServerFrame) []*chatv1.ServerFrame {
		return nil
	})},
	{name: "an answer comes twice", rule: ruleUnanswered, frames: change(
		func(f *chatv1.ServerFrame) []*chatv1.ServerFrame { return []*chatv1.ServerFrame{f, f} },
	)},
	{name: "an internal error", rule: ruleServerError, frames: failure("internal", "", "internal error")},
	{name: "exhausted without a time", rule: ruleServerError, frames: failure("exhausted", "", "full")},
	{name: "a code that is none", rule: ruleUndocumented, frames: failure("odd", "", "no")},
	{name: "a failure of a field that is none", rule: ruleUndocumented, frames: failure("invalid", "nose", "no")},
	{name: "a failure that repeats", rule: ruleRepeats, frames: failure("invalid", "", "not "+canary)},
	{name: "an escape in a failure", rule: ruleShown, frames: failure("invalid", "", "\x1b[2J")},
	{name: "an end without Goodbye", rule: ruleUnanswered, frames: func(
		*chatv1.ServerFrame,
	) ([]*chatv1.ServerFrame, bool) {
		return nil, true
	}},
	{name: "an escape in a text", rule: ruleShown, frames: texts("\x1b[2J")},
	{name: "a hidden text", rule: ruleShown, frames: texts("hi" + strings.Repeat("\U000e0041", 9))},
	{name: "a text that is no UTF-8", rule: ruleShown, frames: texts("\xff")},
	{name: "a blank text", rule: ruleShown, frames: texts("\u2800")},
	{name: "a draft turned round", rule: ruleShown, frames: change(func(f *chatv1.ServerFrame) []*chatv1.ServerFrame {
		if d := f.GetOwnState().GetDraft(); d != nil {
			d.Text = "\u202egnp"
		}
		return []*chatv1.ServerFrame{f}
	})},
	{name: "an invisible name", rule: ruleShown, frames: change(func(f *chatv1.ServerFrame) []*chatv1.ServerFrame {
		if c := f.GetConversation(); c != nil {
			c.Peer.Name = "ann\ufe0f"
		}
		return []*chatv1.ServerFrame{f}
	})},
	{name: "a gap in a page", rule: ruleLog, frames: pages(func(p *chatv1.HistoryPage) { p.Events = p.GetEvents()[1:] })},
	{name: "another text in a page", rule: ruleLog, frames: pages(func(p *chatv1.HistoryPage) {
		for _, e := range p.GetEvents() {
			e.Body = []byte("something else")
		}
	})},
}

func pages(spoil func(*chatv1.HistoryPage)) spoiler {
	return change(func(f *chatv1.ServerFrame) []*chatv1.ServerFrame {
		if p := f.GetHistoryPage(); len(p.GetEvents()) > 0 {
			spoil(p)
		}
		return []*chatv1.ServerFrame{f}
	})
}

// change changes the answers to requests, but not Welcome.
func change(to func(*chatv1.ServerFrame) []*chatv1.ServerFrame) spoiler {
	return func(f *chatv1.ServerFrame) ([]*chatv1.ServerFrame, bool) {
		if f.GetRequestId() == 0 || f.GetWelcome() != nil {
			return []*chatv1.ServerFrame{f}, false
		}
		return to(f), false
	}
}

func failure(code, field, text string) spoiler {
	return change(func(f *chatv1.ServerFrame) []*chatv1.ServerFrame {
		f.Body = &chatv1.ServerFrame_Failure{Failure: &chatv1.Failure{Code: code, Field: field, Text: text}}
		return []*chatv1.ServerFrame{f}
	})
}

func texts(text string) spoiler {
	return pages(func(p *chatv1.HistoryPage) { p.GetEvents()[0].Body = []byte(text) })
}

// every is how many answers pass before one is spoilt.
const every = 5

// between puts the fault between the fuzzer and a system, for as long as the test runs.
func (f planted) between(t *testing.T, to Target) Target {
	t.Helper()
	var n atomic.Int64
	due := func() bool { return n.Add(1)%every == 0 || f.rule == ruleLog }
	if f.frames == nil {
		gate := to.Gate
		to.Gate = listen(t, func(from net.Conn) { f.passBytes(from, gate) })
		return to
	}
	to.Chats = slices.Clone(to.Chats)
	for i, address := range to.Chats {
		to.Chats[i] = listen(t, func(from net.Conn) { f.passFrames(from, address, due) })
	}
	return to
}

func listen(t *testing.T, pass func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			go pass(from)
		}
	}()
	return l.Addr().String()
}

// behind dials, and passes on what the client sends.
func behind(from net.Conn, address string) (net.Conn, error) {
	to, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	go func() {
		_, _ = io.Copy(to, from)
		_ = to.(*net.TCPConn).CloseWrite()
	}()
	return to, nil
}

// passBytes spoils what the gate answers.
func (f planted) passBytes(from net.Conn, address string) {
	defer from.Close()
	to, err := behind(from, address)
	if err != nil {
		return
	}
	defer to.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := to.Read(buf)
		if err != nil {
			return
		}
		switch {
		case f.hold:
		case f.was != "":
			_, _ = from.Write(bytes.ReplaceAll(buf[:n], []byte(f.was), []byte(f.is)))
		}
	}
}

// passFrames spoils what a chat server sends.
func (f planted) passFrames(from net.Conn, address string, due func() bool) {
	defer from.Close()
	to, err := behind(from, address)
	if err != nil {
		return
	}
	defer to.Close()
	r := bufio.NewReader(to)
	for {
		m := &chatv1.ServerFrame{}
		if _, err := frame.Read(r, 8<<20, nil, m); err != nil {
			return
		}
		instead, cut := []*chatv1.ServerFrame{m}, false
		if due() {
			instead, cut = f.frames(m)
		}
		for _, m := range instead {
			out, err := frame.Append(nil, m)
			if err != nil {
				return
			}
			if _, err := from.Write(out); err != nil {
				return
			}
		}
		if cut {
			return
		}
	}
}

// testPlanted: each fault that was planted is found, and called by its rule.
func testPlanted(t *testing.T, target Target) {
	base, err := begin(t.Context(), Config{Target: target, Seed: 1, Only: []string{"none"}})
	if err != nil {
		t.Fatal(err)
	}
	fill(t, base)
	for i, fault := range plantedFaults {
		t.Run(fault.name, func(t *testing.T) {
			self, err := base.register(t.Context(), fmt.Sprint("planted", i))
			if err != nil {
				t.Fatal(err)
			}
			cfg := Config{Target: fault.between(t, target), Seed: uint64(i), Most: 1}
			if fault.rule == ruleUnanswered {
				cfg.Patience = time.Second
			}
			r := newRun(cfg)
			r.doc, r.world = base.doc, base.world
			play := operations
			switch {
			case fault.rule == ruleLog: // what is right becomes wrong on its way
				play = func(ctx context.Context, _ *worker, _ *player, _ values) { r.verify(ctx) }
				r.ledger.sent = base.ledger.sent
			case fault.frames != nil:
				play = requests
			}
			w := &worker{run: r, self: self}
			last := &Trace{}
			for n := uint64(0); r.found() == 0 && n < 200; n++ {
				last = &Trace{Secrets: base.world.secrets()}
				p := r.player(last)
				play(t.Context(), w, p, newValues(r.cfg.Seed, 1, n))
				p.end()
			}
			if found := r.result.Findings; len(found) == 0 || found[0].Rule != fault.rule {
				t.Fatalf("want %q, found %v", fault.rule, found)
			}
			if fault.name == "an internal error" {
				again := newRun(r.cfg)
				again.doc, again.world = base.doc, base.world
				if err := again.replay(t.Context(), last, 10); err != nil || again.found() == 0 {
					t.Errorf("replayed, it found nothing: %v", err)
				}
			}
		})
	}
}

// fill has two people write something.
func fill(t *testing.T, r *run) {
	t.Helper()
	p := r.player(&Trace{})
	f := &filler{values: newValues(1, 1, 1), world: r.world}
	write := [][]byte{f.hello(1)}
	for id := uint64(2); id < 6; id++ {
		write = append(write, f.encode(&chatv1.ClientFrame{
			RequestId: id,
			Body: &chatv1.ClientFrame_Send{Send: &chatv1.Send{
				ConversationId: r.world.of(0)[0], ClientMsgId: f.bytesOf("x_id", false), Body: []byte("hello"),
			}},
		}))
	}
	p.do(t.Context(), Step{At: "chat 0", Do: doOpen})
	p.do(t.Context(), Step{Do: doWrite, Pieces: write})
	p.do(t.Context(), Step{Do: doAwait})
	p.end()
	if err := r.result.Err(); err != nil || len(r.ledger.sent) == 0 {
		t.Fatalf("nothing was sent: %v", err)
	}
}
