package tui

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
	"github.com/google/go-cmp/cmp"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/shared/errs"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares the whole frame, styles left out and each line ended by a
// bar, with the one that somebody looked at and found good.
func (s *screen) golden(name string) {
	s.t.Helper()
	lines, _ := s.m.frame()
	for i := range lines {
		lines[i] = ansi.Strip(lines[i]) + "▏"
	}
	got := strings.Join(lines, "\n") + "\n"
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			s.t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		s.t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
		s.t.Errorf("%s differs (-update writes it anew):\n%s\ngot:\n%s", path, diff, got)
	}
}

func TestGoldenFrames(t *testing.T) {
	graphemes := tea.ModeReportMsg{Mode: ansi.ModeUnicodeCore, Value: ansi.ModeReset}
	for _, test := range []struct {
		name          string
		width, height int
		do            func(s *screen)
	}{
		{"list", 100, 30, func(*screen) {}},
		{"chat", 100, 30, func(s *screen) {
			s.send(graphemes)
			s.goTo("bob")
			s.typed("好的, a draft")
			s.keys("alt+enter")
			s.typed("of two lines ❤️")
		}},
		{"chat", 50, 16, func(s *screen) { s.goTo("bob") }},
		{"list", 50, 16, func(*screen) {}},
		{"chat", 20, 5, func(s *screen) { s.goTo("bob") }},
		{"scrolled", 100, 30, func(s *screen) {
			s.goTo("bob")
			s.keys("pgup")
			s.f.say(s.m.open.id, "while you read")
			s.events()
		}},
		{"scrolled", 50, 16, func(s *screen) {
			s.goTo("小林さくら")
			s.keys("ctrl+home")
		}},
		{"failed", 100, 30, func(s *screen) {
			s.f.refuse = errs.New(errs.CodeRateLimited, "too many messages; wait a moment")
			s.goTo("bob")
			s.typed("One that is refused.")
			s.keys("enter")
			s.f.refuse, s.f.hold = nil, true
			s.f.setLink(client.Link{
				State: client.Offline, RetryAt: testNow.Add(4 * time.Second),
				Cause: errs.New(errs.CodeUnavailable, "the gate cannot be reached"),
			})
			s.events()
			s.typed("One that waits.")
			s.keys("enter")
			s.goTo("Carla")
			s.typed("unfinished")
			s.goTo("bob")
		}},
		{"switcher", 100, 30, func(s *screen) {
			s.goTo("bob")
			s.keys("ctrl+k")
			s.typed("di")
			s.keys("down")
		}},
		{"help", 100, 30, func(s *screen) { s.keys("f1") }},
		{"help", 50, 16, func(s *screen) { s.keys("f1", "pgdown") }},
		{"help", 20, 5, func(s *screen) { s.keys("f1", "down") }},
	} {
		name := fmt.Sprintf("%s-%dx%d", test.name, test.width, test.height)
		t.Run(name, func(t *testing.T) {
			s := newScreen(t, demoBackend(func() time.Time { return testNow }), test.width, test.height)
			test.do(s)
			s.golden(name)
		})
	}
	t.Run("empty", func(t *testing.T) {
		newScreen(t, newFake("ann"), 80, 12).golden("empty-80x12")
	})
}
