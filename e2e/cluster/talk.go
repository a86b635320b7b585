package cluster

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/shared/testenv"
)

// Talker is one side of a conversation: a client, what it sent, and everything
// it was shown. The mutex owns the fields below it.
type Talker struct {
	Client *client.Client
	Name   string
	to     string

	mu    sync.Mutex
	sent  []client.MessageID
	shown map[uint64][]client.Message // by conversation, in the order shown
	links []client.Link
}

// NewTalker reads the client's events until it is closed.
func NewTalker(c *client.Client, name, to string) *Talker {
	t := &Talker{Client: c, Name: name, to: to, shown: make(map[uint64][]client.Message)}
	go func() {
		for e := range c.Events() {
			t.mu.Lock()
			switch e := e.(type) {
			case client.Received:
				t.shown[e.Message.Conversation] = append(t.shown[e.Message.Conversation], e.Message)
			case client.LinkChanged:
				t.links = append(t.links, e.Link)
			}
			t.mu.Unlock()
		}
	}()
	return t
}

// Begin creates the conversation while it is empty. A client shows what comes
// after it first listed its conversations; the answer to this comes after that
// list, so that from now on everything is shown.
func (t *Talker) Begin(tb testing.TB) {
	tb.Helper()
	if _, err := t.Client.WaitOnline(tb.Context()); err != nil {
		tb.Fatalf("%s: %v", t.Name, err)
	}
	if _, err := t.Client.OpenDirect(tb.Context(), t.to); err != nil {
		tb.Fatalf("%s begins to talk with %s: %v", t.Name, t.to, err)
	}
}

// Send hands a text to the outbox.
func (t *Talker) Send(tb testing.TB, text string) client.MessageID {
	tb.Helper()
	to, err := t.Client.Contact(context.Background(), t.to)
	if err != nil {
		tb.Fatalf("%s looks %s up: %v", t.Name, t.to, err)
	}
	out, err := t.Client.Send(context.Background(), to.ID, text)
	if err != nil {
		tb.Fatalf("%s sends: %v", t.Name, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sent = append(t.sent, out.ID)
	return out.ID
}

// Shown is how many messages were shown so far.
func (t *Talker) Shown() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for _, messages := range t.shown {
		n += len(messages)
	}
	return n
}

// Unsettled is how many sent messages have not been shown yet.
func (t *Talker) Unsettled() int {
	unsent, err := t.Client.Unsent(context.Background())
	if err != nil {
		return -1
	}
	return len(unsent)
}

// Instances lists the servers that the client was connected to, in order.
func (t *Talker) Instances() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []string
	for _, l := range t.links {
		if l.State == client.Online {
			out = append(out, l.Instance)
		}
	}
	return out
}

// Corpus are texts that must arrive unchanged.
func Corpus(n int) []string {
	base := []string{
		"hello", "你好，北京", "こんにちは、世界", "안녕하세요 세계", "👨‍👩‍👧 ❤️ 👍🏽 🇨🇳 🎉", "two\nlines", "tab\there",
		"שלום\u200f!", "naïve café — “quotes”", strings.Repeat("长", 4000), "'; DROP TABLE events; --", `\' \\ %s {{.}}`,
	}
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%d %s", i, base[i%len(base)])
	}
	return out
}

// Check waits until both sides were shown total messages, then proves that both
// saw the same log: dense from 1, each message once, each sender's in the order
// typed. It returns the conversation's id.
func Check(tb testing.TB, total int, talkers ...*Talker) uint64 {
	tb.Helper()
	tb.Cleanup(func() {
		if tb.Failed() {
			for _, t := range talkers {
				tb.Logf("%s was shown %d of %d messages, %d wait in the outbox, was on %v, is %v",
					t.Name, t.Shown(), total, t.Unsettled(), t.Instances(), t.Client.Link())
			}
		}
	})
	for _, t := range talkers {
		testenv.Until(tb, fmt.Sprintf("%s sees %d messages", t.Name, total), func() bool { return t.Shown() >= total })
		testenv.Until(tb, t.Name+"'s outbox is empty", func() bool { return t.Unsettled() == 0 })
	}
	var conversation uint64
	var first []client.Message
	for i, t := range talkers {
		t.mu.Lock()
		if len(t.shown) != 1 {
			tb.Errorf("%s was shown %d conversations", t.Name, len(t.shown))
		}
		for id, messages := range t.shown {
			conversation = id
			dense(tb, t.Name, messages, total)
			inOrder(tb, t, messages)
			if i == 0 {
				first = messages
			} else {
				same(tb, t.Name, messages, first)
			}
		}
		t.mu.Unlock()
	}
	return conversation
}

func dense(tb testing.TB, name string, messages []client.Message, total int) {
	tb.Helper()
	if len(messages) != total {
		tb.Errorf("%s was shown %d messages, want %d", name, len(messages), total)
	}
	seen := make(map[client.MessageID]bool)
	for i, m := range messages {
		if m.Seq != uint64(i+1) {
			tb.Fatalf("%s was shown number %d at position %d", name, m.Seq, i+1)
		}
		if seen[m.ID] {
			tb.Fatalf("%s was shown message %v twice", name, m.ID)
		}
		seen[m.ID] = true
	}
}

// inOrder checks that a talker's own messages are in the order typed.
func inOrder(tb testing.TB, t *Talker, messages []client.Message) {
	tb.Helper()
	var own []client.MessageID
	mine := make(map[client.MessageID]bool)
	for _, id := range t.sent {
		mine[id] = true
	}
	for _, m := range messages {
		if mine[m.ID] {
			own = append(own, m.ID)
		}
	}
	if len(own) != len(t.sent) {
		tb.Fatalf("%d of %s's %d messages are in the log", len(own), t.Name, len(t.sent))
	}
	for i := range own {
		if own[i] != t.sent[i] {
			tb.Fatalf("%s typed message %d in another order than the log has", t.Name, i)
		}
	}
}

func same(tb testing.TB, name string, a, b []client.Message) {
	tb.Helper()
	for i := range min(len(a), len(b)) {
		if a[i].ID != b[i].ID || a[i].Text() != b[i].Text() || a[i].Sender != b[i].Sender {
			tb.Fatalf("%s sees another message at position %d than the other side", name, i+1)
		}
	}
}
