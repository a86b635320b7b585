package tui

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/shared/content"
)

// loaded is an open chat with n messages held, on a screen of 120x40.
func loaded(b *testing.B, n int) (*Model, uint64) {
	b.Helper()
	f := newFake("ann")
	conv := f.conversation("bob", 0)
	start, err := takeSnapshot(b.Context(), f, nil, nil)
	if err != nil {
		b.Fatal(err)
	}
	m := newModel(b.Context(), f, slog.New(slog.DiscardHandler), time.Now, start)
	m.after = func(time.Duration, tea.Msg) tea.Cmd { return nil }
	m.Update(tea.WindowSizeMsg{Width: 120, Height: 40})
	m.openChat(m.chats.sorted[0])
	var batch eventsMsg
	for i := range n {
		batch = append(batch, event(conv, uint64(i+1)))
	}
	m.Update(batch)
	if got := len(m.open.hist.rows); got != n {
		b.Fatalf("%d messages are held", got)
	}
	m.View()
	return m, conv
}

func event(conv, seq uint64) client.Received {
	text := fmt.Sprintf("message %d, 你好 👋 with some words that take more than a line on a screen of usual width, "+
		"as many do", seq)
	return client.Received{
		Message: client.Message{
			Conversation: conv, Seq: seq, Ordinal: seq, Sender: 1 + seq%2, Kind: content.Text, Body: []byte(text),
			At: testNow.Add(time.Duration(seq) * time.Minute),
		},
		Peer: client.Peer{ID: 2, Name: "bob"}, Mine: seq%2 == 0,
	}
}

var sizes = []int{1_000, 50_000}

// BenchmarkAppend is one message that comes, and the frame with it.
func BenchmarkAppend(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			m, conv := loaded(b, n)
			seq := uint64(n)
			for b.Loop() {
				seq++
				m.Update(eventsMsg{event(conv, seq)})
				m.View()
			}
		})
	}
}

// BenchmarkScroll is a page up or down, and its frame.
func BenchmarkScroll(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			m, _ := loaded(b, n)
			up, down := press(b, "pgup"), press(b, "pgdown")
			for i := 0; b.Loop(); i++ {
				if i/20%2 == 0 {
					m.Update(up)
				} else {
					m.Update(down)
				}
				m.View()
			}
		})
	}
}

// BenchmarkType is one key in the composer, and its frame.
func BenchmarkType(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			m, _ := loaded(b, n)
			x, back := tea.KeyPressMsg{Code: 'x', Text: "x"}, press(b, "backspace")
			for i := 0; b.Loop(); i++ {
				if i%2 == 0 {
					m.Update(x)
				} else {
					m.Update(back)
				}
				m.View()
			}
		})
	}
}

// BenchmarkSwitcher is one letter of a name among 5,000 chats, and its frame.
func BenchmarkSwitcher(b *testing.B) {
	m, _ := loaded(b, 10)
	for i := range 5_000 {
		id := uint64(1000 + i)
		m.chats.get(id, client.Peer{ID: id, Name: fmt.Sprintf("person-%d", i)}).last = testNow
	}
	m.openSwitcher()
	x, back := tea.KeyPressMsg{Code: 'p', Text: "p"}, press(b, "backspace")
	for i := 0; b.Loop(); i++ {
		if i%2 == 0 {
			m.Update(x)
		} else {
			m.Update(back)
		}
		m.View()
	}
}
