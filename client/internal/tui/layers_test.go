package tui

import (
	"fmt"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
)

// notebook is a layer that the program does not have: it writes down what it
// gets.
type notebook struct{ got []string }

func (n *notebook) update(_ *Model, msg tea.Msg) tea.Cmd {
	switch msg := msg.(type) {
	case tea.KeyPressMsg:
		n.got = append(n.got, keyName(msg))
		if keyName(msg) == "a" {
			return answerTo(n, func() tea.Msg { return "the answer" })
		}
	case tea.PasteMsg:
		n.got = append(n.got, "pasted "+msg.Content)
	case tea.MouseMsg:
		n.got = append(n.got, fmt.Sprint("mouse at ", msg.Mouse().X))
	default:
		n.got = append(n.got, fmt.Sprint(msg))
	}
	return nil
}

func (n *notebook) title(m *Model, _ int) (left, right string) {
	return m.styles.title.Render("Notebook"), "Esc "
}

func (n *notebook) draw(m *Model, a area) drawing {
	lines := m.pad(n.got, a.w, min(len(n.got), a.h))
	return drawing{lines: append(lines, rule(a.w)), cursor: tea.NewCursor(0, len(lines)), rule: len(lines)}
}

func TestALayerThatIsNewNeedsNoChangeElsewhere(t *testing.T) {
	f := newFake("ann")
	conv := f.conversation("bob", 10, line{true, time.Hour, "hello"})
	s := newScreen(t, f, 100, 20)
	s.keys("enter")
	s.typed("a draft")
	n := &notebook{}
	s.m.layers.open(n)
	s.keys("x", "up", "enter", "ctrl+x")
	s.send(tea.PasteMsg{Content: "text"})
	s.send(tea.MouseClickMsg{X: 7})
	s.keys("a")
	if got, want := fmt.Sprint(n.got), "[x up enter ctrl+x pasted text mouse at 7 a the answer]"; got != want {
		t.Errorf("it got %s, want %s", got, want)
	}
	s.has("Notebook", "Esc", "pasted text", "the answer", "bob", "├───")
	s.hasNot("hello", "a draft")
	if s.m.open.composer.value != "a draft" {
		t.Errorf("the composer has %q", s.m.open.composer.value)
	}
	// What comes below it is not read.
	f.say(conv, "unseen")
	s.events()
	s.has("(1)")
	// Over it lies another one; Esc closes one at a time.
	s.m.openHelp()
	s.send(tea.FocusMsg{})
	s.has("Keys")
	s.keys("esc")
	s.has("Notebook", "(1)")
	// An answer finds the layer also where it is not on top, and none that was
	// closed.
	s.hold = true
	s.keys("a")
	s.m.openHelp()
	s.release()
	if got := n.got[len(n.got)-1]; got != "the answer" {
		t.Errorf("below another layer it got %q", got)
	}
	s.keys("esc")
	s.hold = true
	s.keys("a", "esc")
	s.release()
	if got := n.got[len(n.got)-1]; got != "a" {
		t.Errorf("after it was closed it got %q", got)
	}
	s.has("hello", "unseen", "a draft")
	s.hasNot("Notebook", "(1)")
	// Esc does not close the base, and Ctrl+C leaves from every layer.
	s.keys("esc", "esc", "esc")
	s.has("a draft")
	s.m.layers.open(n)
	s.keys("ctrl+c", "ctrl+c")
	if !s.quit {
		t.Error("it did not leave")
	}
}

func TestEveryLayerFitsEverySize(t *testing.T) {
	f := newFake("ann")
	f.conversation("bob", 10, line{true, time.Hour, "hello"})
	for width := 1; width < 130; width += 7 {
		for height := 1; height < 20; height += 2 {
			s := newScreen(t, f, width, height) // every frame is checked
			s.m.layers.open(&notebook{got: []string{"one", "two", "你好 three that is quite long"}})
			s.send(tea.FocusMsg{})
		}
	}
}
