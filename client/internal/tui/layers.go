package tui

import (
	"slices"

	tea "charm.land/bubbletea/v2"
)

// layer takes all input while it is on top: the base
// (chats and composer), or what was opened over it. The Model knows no kind of
// layer but the base, and a layer does not know the ones below it.
type layer interface {
	// update handles a key press other than those that work everywhere (see
	// binding.always), a paste, a mouse event, or an answer (see answer).
	update(m *Model, msg tea.Msg) tea.Cmd
	// title returns what stands at the left and the right end of the title row,
	// styled; a narrow row has no place for the right one.
	title(m *Model, width int) (left, right string)
	// draw returns the rows below the title, at most a.h of at most a.w cells.
	// It changes nothing but caches.
	draw(m *Model, a area) drawing
}

// drawing is what a layer shows.
type drawing struct {
	lines  []string
	cursor *tea.Cursor // within lines; nil: there is none
	rule   int         // the line that is a rule from side to side, -1: none
}

// stack is the layers from the base, which is always there, to the top.
type stack []layer

func (s stack) top() layer       { return s[len(s)-1] }
func (s stack) onBase() bool     { return len(s) == 1 }
func (s stack) has(l layer) bool { return slices.Contains(s, l) }
func (s *stack) open(l layer)    { *s = append(*s, l) }

// close takes a layer off the stack, wherever it is. The base stays.
func (s *stack) close(l layer) {
	*s = append((*s)[:1], slices.DeleteFunc((*s)[1:], func(o layer) bool { return o == l })...)
}

// answer is a message from a command to the layer that started it. It is dropped
// when the layer was closed meanwhile.
type answer struct {
	to  layer
	msg tea.Msg
}

// answerTo makes a command's message an answer to a layer.
func answerTo(l layer, cmd tea.Cmd) tea.Cmd {
	return func() tea.Msg { return answer{l, cmd()} }
}

func (m *Model) onAnswer(a answer) tea.Cmd {
	if !m.layers.has(a.to) {
		return nil
	}
	return a.to.update(m, a.msg)
}

// onKey handles a key press: the keys that work everywhere, and else the top
// layer.
func (m *Model) onKey(k tea.KeyPressMsg) tea.Cmd {
	if b := bound(m, keyName(k)); b != nil && b.always {
		return b.do(m)
	}
	return m.layers.top().update(m, k)
}

// back closes the top layer, or goes one step back in the base.
func (m *Model) back() tea.Cmd {
	if !m.layers.onBase() {
		m.layers.close(m.layers.top())
		return nil
	}
	switch {
	case m.open == nil:
	case !m.open.scroll.following():
		m.open.scroll.follow()
	case m.layout().side.w == 0:
		m.closeChat()
	}
	return nil
}

// mayLeave ends the program at the second Ctrl+C.
func (m *Model) mayLeave() tea.Cmd {
	if m.clock.Before(m.leave) {
		return tea.Quit
	}
	m.leave = m.clock.Add(leaveTime)
	m.say("press Ctrl+C again to leave; drafts and unsent messages are kept")
	m.notice.until = m.leave
	return nil
}
