package tui

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/client/store"
	"github.com/msrchat/msrchat/shared/content"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/text"
)

// sent is what reached the server after the first skip messages.
func (f *fakeBackend) sent(conv uint64, skip int) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for _, m := range f.logs[conv][skip:] {
		out = append(out, m.Text())
	}
	return out
}

// mark is the sign at the end of the line that has a text.
func (s *screen) mark(text string) string {
	s.t.Helper()
	for _, l := range strings.Split(s.frame(), "\n") {
		if strings.Contains(l, text) {
			fields := strings.Fields(l)
			return fields[len(fields)-1]
		}
	}
	s.t.Fatalf("%q is not on the screen:\n%s", text, s.frame())
	return ""
}

func TestEnterSends(t *testing.T) {
	f := newFake("ann")
	conv := f.conversation("bob", 10, line{false, time.Hour, "hello"})
	f.hold = true
	s := newScreen(t, f, 100, 30)
	s.goTo("bob")
	s.typed("first")
	s.keys("enter")
	s.typed("second")
	s.keys("enter")
	if got := []string{s.mark("first"), s.mark("second")}; !slices.Equal(got, []string{"◌", "◌"}) {
		t.Errorf("queued messages have the marks %q", got)
	}
	f.hold = false
	f.deliver()
	s.events()
	if got := []string{s.mark("first"), s.mark("second")}; !slices.Equal(got, []string{"✓", "✓"}) {
		t.Errorf("sent messages have the marks %q", got)
	}
	if got := f.sent(conv, 1); !slices.Equal(got, []string{"first", "second"}) {
		t.Errorf("sent: %q", got)
	}
	if n := strings.Count(s.frame(), "first"); n != 1 {
		t.Errorf("it is %d times on the screen:\n%s", n, s.frame())
	}
	if len(s.m.open.hist.pending) != 0 {
		t.Error("something is still pending")
	}
}

func TestOnlyEnterSends(t *testing.T) {
	f := newFake("ann")
	conv := f.conversation("bob", 10, line{false, time.Hour, "hello"})
	s := newScreen(t, f, 100, 30)
	s.goTo("bob")
	var lines []string
	for i := range 200 {
		lines = append(lines, fmt.Sprint("pasted line ", i))
	}
	s.send(tea.PasteMsg{Content: strings.Join(lines, "\r\n") + "\r\n"})
	s.typed("x")
	for _, key := range newlineKeys {
		s.keys(key)
	}
	if got := f.sent(conv, 1); len(got) != 0 {
		t.Fatalf("sent: %q", got)
	}
	want := strings.Join(lines, "\n") + "\nx" + strings.Repeat("\n", len(newlineKeys))
	if got := s.m.open.composer.value; got != want {
		t.Errorf("the composer has %q", got)
	}
	if rows := s.m.chatLayout().input; rows != maxInput {
		t.Errorf("the composer has %d rows", rows)
	}
	s.keys("enter")
	if got := f.sent(conv, 1); len(got) != 1 || got[0] != strings.Join(lines, "\n")+"\nx" {
		t.Errorf("sent: %q", got)
	}
	if rows := s.m.chatLayout().input; rows != 1 || s.m.open.composer.value != "" {
		t.Errorf("the composer has %d rows with %q", rows, s.m.open.composer.value)
	}
}

func TestWhatCannotBeSentStays(t *testing.T) {
	f := newFake("ann")
	conv := f.conversation("bob", 10, line{false, time.Hour, "hello"})
	s := newScreen(t, f, 100, 30)
	s.goTo("bob")
	s.keys("enter")
	s.typed("   ")
	s.keys("enter")
	s.hasNot("✗", "not sent")
	s.m.open.composer.set("")
	long := strings.Repeat("字", text.MaxMessageRunes+5)
	s.send(tea.PasteMsg{Content: long})
	s.has("4101 of 4096 characters")
	s.keys("enter")
	s.has("not sent: the text is longer than 4096 characters")
	if s.m.open.composer.value != long || len(f.sent(conv, 1)) != 0 {
		t.Error("the text did not stay")
	}
	s.keys("backspace", "backspace", "backspace", "backspace", "backspace", "enter")
	if got := f.sent(conv, 1); len(got) != 1 || len([]rune(got[0])) != text.MaxMessageRunes {
		t.Errorf("%d messages were sent", len(got))
	}
	s.send(tea.PasteMsg{Content: strings.Repeat("x", maxDraft+1)})
	s.has("not pasted")
	if s.m.open.composer.value != "" {
		t.Error("a part was pasted")
	}
}

func TestSlashes(t *testing.T) {
	f := newFake("ann")
	conv := f.conversation("bob", 10, line{false, time.Hour, "hello"})
	s := newScreen(t, f, 100, 30)
	s.goTo("bob")
	for _, text := range []string{"/tmp/x is a path", "//quit", "/", "a /quit", "/etc.d"} {
		s.typed(text)
		s.keys("enter")
	}
	want := []string{"/tmp/x is a path", "/quit", "/", "a /quit", "/etc.d"}
	if got := f.sent(conv, 1); !slices.Equal(got, want) {
		t.Errorf("sent %q, want %q", got, want)
	}
	s.typed("/quitt now")
	s.keys("enter")
	s.has("there is no command /quitt")
	if s.m.open.composer.value != "/quitt now" {
		t.Error("the line did not stay")
	}
	s.m.open.composer.set("")
	s.typed("/help")
	s.keys("enter")
	s.has("Keys", "new line")
	s.keys("esc")
	s.typed("/quit")
	s.keys("enter")
	if !s.quit {
		t.Error("it did not quit")
	}
}

func TestAFailedMessageTellsWhyAndCanBeSentAgainOrDiscarded(t *testing.T) {
	f := newFake("ann")
	conv := f.conversation("bob", 10, line{false, time.Hour, "hello"})
	f.refuse = errs.New(errs.CodeRateLimited, "too many messages")
	s := newScreen(t, f, 100, 30)
	s.goTo("bob")
	for _, text := range []string{"one", "two"} {
		s.typed(text)
		s.keys("enter")
	}
	if got := s.mark("  one"); got != "✗" {
		t.Errorf("a failed message has the mark %q", got)
	}
	s.has("✗ not sent: too many messages", "Ctrl+T send again · Ctrl+X discard")
	if n := strings.Count(s.frame(), keyDiscard); n != 1 {
		t.Errorf("%d messages offer the keys, one has them", n)
	}
	s = s.restart() // they are kept
	s.goTo("bob")
	s.keys("ctrl+x")
	s.hasNot("  one")
	f.refuse = nil
	s.keys("ctrl+t")
	s.hasNot("✗")
	if got := f.sent(conv, 1); !slices.Equal(got, []string{"two"}) {
		t.Errorf("sent: %q", got)
	}
	if left, _ := f.Unsent(t.Context()); len(left) != 0 {
		t.Errorf("the outbox has %v", left)
	}
	s.keys("ctrl+t", "ctrl+x") // nothing to act on
	if got := f.sent(conv, 1); !slices.Equal(got, []string{"two"}) {
		t.Errorf("sent: %q", got)
	}
}

// brokenDisk refuses to write.
type brokenDisk struct{ *fakeBackend }

var errDisk = errors.New("disk full")

func (brokenDisk) Send(context.Context, Target, string) (client.Outgoing, error) {
	return client.Outgoing{}, errDisk
}

func TestAFailingDiskLosesNoText(t *testing.T) {
	f := newFake("ann")
	f.conversation("bob", 10, line{false, time.Hour, "hello"})
	f.conversation("Carla", 10, line{false, 2 * time.Hour, "hello"})
	s := newScreen(t, f, 100, 30)
	s.m.b = brokenDisk{f}
	s.goTo("bob")
	s.hold = true
	s.typed("important")
	s.keys("enter")
	s.typed("and more")
	s.release()
	s.has("not sent: disk full")
	if got := s.m.open.composer.value; got != "important\nand more" {
		t.Errorf("the composer has %q", got)
	}
	// Also where another chat was opened meanwhile.
	s.hold = true
	s.keys("enter", "alt+down")
	s.release()
	if got := s.m.open.composer.value; got != "" {
		t.Errorf("the other chat's composer has %q", got)
	}
	s.keys("alt+up")
	if got := s.m.open.composer.value; got != "important\nand more" {
		t.Errorf("the composer has %q", got)
	}
}

// TestNewsOfAMessageInEveryOrder: the outbox's word, the acknowledgement, the
// log's word and a reading of the outbox may overtake one another.
func TestNewsOfAMessageInEveryOrder(t *testing.T) {
	f := newFake("ann")
	conv := f.conversation("bob", 10, line{false, time.Hour, "hello"})
	id, _ := store.NewMessageID()
	body := []byte("the message")
	queued := client.Outgoing{ID: id, Order: 7, Conversation: conv, Kind: content.Text, Body: body, At: testNow}
	acked := queued
	acked.State, acked.Seq, acked.LoggedAt = client.Acknowledged, 2, testNow
	received := client.Received{
		Message: client.Message{
			Conversation: conv, Seq: 2, Ordinal: 2, ID: id, Sender: 1, Kind: content.Text, Body: body, At: testNow,
		},
		Peer: f.peers[conv], Mine: true,
	}
	news := []tea.Msg{
		sentMsg{text: "the message", out: queued},
		eventsMsg{client.SendChanged{Outgoing: acked}},
		eventsMsg{received},
		unsentMsg{all: []client.Outgoing{queued}, upTo: 7},
		unsentMsg{upTo: 7},
	}
	permute(len(news), func(order []int) {
		s := newScreen(t, f, 60, 12)
		s.keys("enter")
		for _, i := range order {
			msg := news[i]
			if sent, is := msg.(sentMsg); is {
				msg = wroteMsg{write{c: s.m.open.chat}, s.m.epoch, sent}
			}
			s.send(msg)
			if n := strings.Count(s.frame(), "the message"); n > 1 {
				t.Fatalf("order %v: it is there %d times:\n%s", order, n, s.frame())
			}
		}
		if s.mark("the message") != "✓" || len(s.m.open.hist.pending) != 0 || len(s.m.open.hist.rows) != 2 {
			t.Fatalf("order %v: %d pending\n%s", order, len(s.m.open.hist.pending), s.frame())
		}
	})
}

func permute(n int, fn func([]int)) {
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	var rec func(k int)
	rec = func(k int) {
		if k == n {
			fn(order)
			return
		}
		for i := k; i < n; i++ {
			order[k], order[i] = order[i], order[k]
			rec(k + 1)
			order[k], order[i] = order[i], order[k]
		}
	}
	rec(0)
}

func TestAnotherProcessOfTheProfileSends(t *testing.T) {
	f := newFake("ann")
	conv := f.conversation("bob", 10, line{false, time.Hour, "hello"})
	s := newScreen(t, f, 100, 30)
	s.goTo("bob")
	f.hold = true
	for i := range 3 {
		_, err := f.Send(t.Context(), Target{f.epoch(), conv}, fmt.Sprint("from a script ", i))
		must(err)
	}
	f.events <- client.OutboxChanged{}
	s.events()
	if got := s.mark("script 2"); got != "◌" {
		t.Errorf("the mark is %q", got)
	}
	// The other process gets the acknowledgements, this one does not.
	f.deliver()
	for len(f.events) > 0 {
		if e := (<-f.events); fmt.Sprintf("%T", e) == "client.Received" {
			defer func() { f.events <- e }()
		}
	}
	f.events <- client.OutboxChanged{}
	s.events()
	for i := range 3 {
		if got := s.mark(fmt.Sprint("script ", i)); got != "✓" {
			t.Errorf("the mark of %d is %q", i, got)
		}
	}
}

func TestDraftsSurvive(t *testing.T) {
	f := newFake("ann")
	f.conversation("bob", 10, line{false, time.Hour, "hello"})
	f.conversation("Carla", 10, line{false, 2 * time.Hour, "hi"})
	s := newScreen(t, f, 100, 30)
	s.goTo("bob")
	s.typed("for bob")
	s.keys("alt+enter")
	s.typed("你好")
	s.goTo("Carla")
	if s.m.open.composer.value != "" {
		t.Errorf("the other chat begins with %q", s.m.open.composer.value)
	}
	s.has("✎")
	s.typed("for carla")
	s.keys("esc", "esc")
	f.setLink(client.Link{State: client.Offline})
	s.events()
	// A crash now costs nothing that was typed before the timer went off.
	s.fire(keepTime)
	crashed := newScreen(t, f, 100, 30)
	crashed.goTo("bob")
	if got := crashed.m.open.composer.value; got != "for bob\n你好" {
		t.Errorf("after a crash: %q", got)
	}
	s.typed("!")
	s = s.restart()
	s.goTo("Carla")
	if got := s.m.open.composer.value; got != "for carla!" {
		t.Errorf("after leaving: %q", got)
	}
	s.keys("enter")
	s.fire(keepTime)
	s = s.restart()
	s.goTo("Carla")
	if got := s.m.open.composer.value; got != "" {
		t.Errorf("a sent text is still a draft: %q", got)
	}
}

func TestWritesAreInOrder(t *testing.T) {
	f := newFake("ann")
	conv := f.conversation("bob", 10, line{false, time.Hour, "hello"})
	s := newScreen(t, f, 100, 30)
	s.goTo("bob")
	s.hold = true
	var want []string
	for i := range 20 {
		want = append(want, fmt.Sprint("message ", i))
		s.typed(want[i])
		s.keys("enter")
	}
	if n := len(s.held); n == 0 {
		t.Fatal("nothing waits")
	}
	slices.Reverse(s.held) // Bubble Tea runs commands in any order
	s.release()
	if got := f.sent(conv, 1); !slices.Equal(got, want) {
		t.Errorf("sent: %q", got)
	}
}

func TestATextThatCannotBeSentOnTheWayOutIsADraft(t *testing.T) {
	f := newFake("ann")
	f.conversation("bob", 10, line{false, time.Hour, "hello"})
	s := newScreen(t, f, 100, 30)
	s.m.b = brokenDisk{f}
	s.goTo("bob")
	s.m.open.composer.set("one")
	go s.m.submit()() // under way
	s.m.open.composer.set("two")
	s.m.submit() // queued
	s.m.open.composer.set("three")
	if err := s.m.finish(t.Context()); !errors.Is(err, errDisk) {
		t.Errorf("it ended with: %v", err)
	}
	if got := f.own(f.with("bob")).Draft; got != "one\ntwo\nthree" {
		t.Errorf("the draft is %q", got)
	}
}

func TestAnInputMethodsTextIsNoKey(t *testing.T) {
	f := newFake("ann")
	f.conversation("bob", 10, line{false, time.Hour, "hello"})
	s := newScreen(t, f, 100, 30)
	s.goTo("bob")
	for _, text := range []string{"你好", "enter", "left", "f1"} {
		s.send(tea.KeyPressMsg{Code: tea.KeyExtended, Text: text})
	}
	if got := s.m.open.composer.value; got != "你好enterleftf1" {
		t.Errorf("the composer has %q", got)
	}
}
