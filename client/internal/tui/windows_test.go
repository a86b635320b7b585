package tui

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/client/internal/fake"
	"github.com/msrchat/msrchat/client/store"
	"github.com/msrchat/msrchat/client/store/sqlite"
)

// service is a fake service with ann, whose screens a test opens, and bob.
type service struct {
	t       *testing.T
	log     *fake.Log
	gate    *client.Gate
	servers []*fake.Server
	ann     client.Session
	conv    uint64        // of ann and bob
	skew    time.Duration // of the clock of all screens
}

func newService(t *testing.T) *service {
	t.Helper()
	log := fake.NewLog()
	id, token := log.AddUser("ann")
	log.AddUser("bob")
	w := &service{t: t, log: log, ann: client.Session{Token: token, User: client.User{ID: id, Name: "ann"}}}
	w.servers = []*fake.Server{fake.NewServer(t, log, "s1"), fake.NewServer(t, log, "s2")}
	var err error
	if w.gate, err = client.NewGate(fake.NewGate(t, log).URL, nil); err != nil {
		t.Fatal(err)
	}
	w.conv = log.Open("ann", "bob")
	return w
}

// backend is one more client of ann on a store.
func (w *service) backend(s store.Store) Backend {
	w.t.Helper()
	c, err := client.Open(context.WithoutCancel(w.t.Context()), client.Options{
		Gate: w.gate, Session: w.ann, Store: s, Backoff: quick, FirstPage: -1,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(c.Close)
	return NewBackend(c, s)
}

// quick are waits for tests.
var quick = client.Backoff{First: 5 * time.Millisecond, Base: 10 * time.Millisecond, Cap: 50 * time.Millisecond}

// screen is one more screen of ann.
func (w *service) screen(s store.Store) *screen {
	w.t.Helper()
	clock := func() time.Time { return time.Now().Add(w.skew) }
	return screenOn(w.t, &screen{}, w.backend(s), clock, 100, 20)
}

// shared opens handles on one file, as the windows of a profile do.
func (w *service) shared() func() store.Store {
	path := filepath.Join(w.t.TempDir(), "store")
	return func() store.Store {
		w.t.Helper()
		s, err := sqlite.Open(w.t.Context(), path, w.ann.User.ID)
		if err != nil {
			w.t.Fatal(err)
		}
		w.t.Cleanup(func() { s.Close() })
		return s
	}
}

// until lets screens live until a condition holds: events come, and timers go off
// when it is their time. It returns how long that took.
func until(t *testing.T, screens []*screen, what string, ok func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	for tick := time.NewTicker(2 * time.Millisecond); ; {
		for _, s := range screens {
			s.events()
			now := time.Now()
			s.goOff(func(w waiting) bool { return !now.Before(w.due) })
		}
		if ok() {
			return time.Since(began)
		}
		if time.Since(began) > patience {
			t.Fatalf("not in time: %s\n%s\n\n%s", what, screens[0].frame(), screens[len(screens)-1].frame())
		}
		<-tick.C
	}
}

func (s *screen) shows(text string) func() bool {
	return func() bool { return strings.Contains(s.frame(), text) }
}

func (s *screen) shownNot(text string) func() bool {
	return func() bool { return !strings.Contains(s.frame(), text) }
}

// TestWindowsAndDevicesAgree: what is read or begun on one screen of a person is so
// on the other, be it another window on the same store or another device.
func TestWindowsAndDevicesAgree(t *testing.T) {
	for name, stores := range map[string]func(w *service) func() store.Store{
		"windows": (*service).shared,
		"devices": func(*service) func() store.Store {
			return func() store.Store { return store.NewMemory(10_000) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newService(t)
			open := stores(w)
			a, b := w.screen(open()), w.screen(open())
			both := []*screen{a, b}
			agree(t, w, both)
		})
	}
}

func agree(t *testing.T, w *service, both []*screen) {
	t.Helper()
	a, b := both[0], both[1]
	until(t, both, "both are online", func() bool { return a.shows("● online")() && b.shows("● online")() })
	best := time.Duration(1 << 62) // of three: the machine may be busy
	for range 3 {
		for range 3 {
			w.log.Say(w.conv, "bob", "news")
		}
		until(t, both, "both have a badge", func() bool {
			return a.shows("(3)")() && a.shows("3 unread")() && b.shows("(3)")() && b.shows("3 unread")()
		})
		a.goTo("bob")
		a.hasNot("(3)", "unread")
		best = min(best, until(t, both, "the other one's badge is gone", b.shownNot("unread")))
		b.hasNot("(3)")
		a.send(tea.BlurMsg{}) // or the next ones are read as they come
		a.m.closeChat()
		a.send(tea.FocusMsg{})
	}
	if best > time.Second {
		t.Errorf("the badge was there for %v at least", best)
	}
	t.Logf("the other badge was gone after %v", best)

	// A draft goes to the other one, open there or not, and back.
	a.goTo("bob")
	a.typed("half a thou")
	took := until(t, both, "the other list has a draft", b.shows("✎"))
	t.Logf("the draft was there after %v", took)
	b.goTo("bob")
	if got := b.m.open.composer.value; got != "half a thou" {
		t.Errorf("the other composer has %q", got)
	}
	w.skew += 2 * typingTime
	b.typed("ght")
	value := func(s *screen, want string) func() bool {
		return func() bool { return s.m.open.composer.value == want }
	}
	until(t, both, "the text came back", value(a, "half a thought"))
	w.skew += 2 * typingTime
	b.keys("enter")
	until(t, both, "it was sent, and is no draft any more", func() bool {
		return value(a, "")() && value(b, "")() && a.shows("half a thought")() && b.shows("half a thought")()
	})
	a.hasNot("unread")
	if texts := w.log.Texts(w.conv); texts[len(texts)-1] != "half a thought" || len(texts) != 10 {
		t.Errorf("the log has %q", texts)
	}
	until(t, both, "the server has no draft", func() bool {
		return w.log.Own(w.conv, "ann").GetDraft().GetText() == ""
	})
}

// TestNothingTypedInTwoWindowsIsLost: a person types in both at once, faster than the
// windows learn of each other.
func TestNothingTypedInTwoWindowsIsLost(t *testing.T) {
	w := newService(t)
	open := w.shared()
	a, b := w.screen(open()), w.screen(open())
	both := []*screen{a, b}
	until(t, both, "both are online", func() bool { return a.shows("● online")() && b.shows("● online")() })
	a.goTo("bob")
	b.goTo("bob")
	var words []string
	for n := range 6 {
		for name, s := range map[string]*screen{"a": a, "b": b} {
			word := fmt.Sprintf("%s%d.", name, n)
			words = append(words, word)
			s.typed(word)
			if n%2 == 0 {
				s.fire(keepTime)
			}
		}
	}
	until(t, both, "both show the same", func() bool {
		return a.m.open.composer.value == b.m.open.composer.value && !a.m.open.draft.unkept() &&
			!b.m.open.draft.unkept()
	})
	for _, word := range words {
		if text := a.m.open.composer.value; !strings.Contains(text, word) {
			t.Errorf("%q is lost: %q", word, text)
		}
	}
}
