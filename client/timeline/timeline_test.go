package timeline

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/msrchat/msrchat/client/store"
	"github.com/msrchat/msrchat/shared/content"
)

// note is a made-up kind: its body is the number of an earlier event and a text to
// put behind what that one shows.
const note = 77

func made() map[uint32]kind {
	return map[uint32]kind{
		content.Text: kinds[content.Text],
		note: {changes: func(e store.Message) (uint64, func(*Row)) {
			var seq uint64
			var text string
			_, _ = fmt.Sscanf(string(e.Body), "%d %s", &seq, &text) // what is wrong changes nothing
			return seq, func(r *Row) { r.Text += "+" + text }
		}},
	}
}

func event(seq uint64, kind uint32, format string, args ...any) store.Message {
	return store.Message{Seq: seq, ID: store.MessageID{byte(seq)}, Kind: kind, Body: fmt.Appendf(nil, format, args...)}
}

func shown(l *Log) (out []string) {
	for _, r := range l.Rows() {
		text := fmt.Sprintf("%d %s", r.Event.Seq, r.Text)
		if r.Hidden {
			text += "(hidden)"
		}
		out = append(out, text)
	}
	return out
}

func want(t *testing.T, l *Log, rows ...string) {
	t.Helper()
	if diff := cmp.Diff(rows, shown(l)); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

func TestAnEventMayChangeAnEarlierRowInsteadOfBeingOne(t *testing.T) {
	l := &Log{kinds: made()}
	l.Append(event(1, content.Text, "a"), event(2, content.Text, "b"))
	first := l.Rows()[0]
	changed := l.Append(event(3, note, "1 x"), event(4, content.Text, "c"), event(5, note, "1 y"),
		event(6, note, "99 z"))
	want(t, l, "1 a+x+y", "2 b", "4 c")
	if len(changed) != 2 || changed[0] != first || l.Rows()[0] != first {
		t.Errorf("changed: %v", changed)
	}
	if l.Lo() != 1 || l.Hi() != 6 {
		t.Errorf("holds %d to %d", l.Lo(), l.Hi())
	}
	for seq, want := range map[uint64]int{1: 0, 2: 1, 3: 2, 4: 2, 5: 3} {
		if i, there := l.Index(seq); i != want || there != (seq != 3 && seq != 5) {
			t.Errorf("event %d is at %d, %v", seq, i, there)
		}
	}
}

func TestAnUnknownKindHasItsRow(t *testing.T) {
	var l Log
	l.Append(event(1, content.Text, "a"), event(2, 200, "\xff"), event(3, content.Text, "b"))
	want(t, &l, "1 a", "2 (hidden)", "3 b")
}

func TestWhatDoesNotFitIsSkipped(t *testing.T) {
	l := &Log{kinds: made()}
	if n := l.Prepend(event(3, content.Text, "lost"), event(5, content.Text, "e"),
		event(6, content.Text, "f")); n != 2 {
		t.Errorf("%d rows added", n)
	}
	l.Append(event(6, content.Text, "again"), event(7, content.Text, "g"), event(9, content.Text, "gap"))
	page := []store.Message{
		event(1, content.Text, "gap"), event(3, content.Text, "c"), event(4, note, "3 x"),
		event(5, note, "3 y"),
	}
	if n := l.Prepend(page...); n != 1 {
		t.Errorf("%d rows added", n)
	}
	want(t, l, "3 c+x", "5 e", "6 f", "7 g")
	l.Trim(2)
	want(t, l, "6 f", "7 g")
	if l.Lo() != 6 || l.Hi() != 7 {
		t.Errorf("holds %d to %d", l.Lo(), l.Hi())
	}
}

// A log that grew at both ends, and was cut now and then, equals one that was read
// at once.
func TestAnyPagesGiveTheSameRows(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var all []store.Message
		for seq := uint64(1); seq <= 60; seq++ {
			switch rng.IntN(5) {
			case 0, 1:
				all = append(all, event(seq, note, "%d n%d", 1+rng.Uint64N(60), seq))
			case 2:
				all = append(all, event(seq, 200, "?"))
			default:
				all = append(all, event(seq, content.Text, "t%d", seq))
			}
		}
		l := &Log{kinds: made()}
		begin := rng.IntN(50)
		l.Append(all[begin : begin+5]...)
		for range 60 {
			lo, hi := int(l.Lo())-1, int(l.Hi()) // all[lo:hi] is held
			switch n := 1 + rng.IntN(7); rng.IntN(5) {
			case 0, 1:
				l.Append(all[hi-3 : min(hi+n, len(all))]...)
			case 2, 3:
				l.Prepend(all[max(0, lo-n) : lo+3]...)
			case 4:
				l.Trim(10)
			}
			at := &Log{kinds: made()}
			at.Append(all[l.Lo()-1 : l.Hi()]...)
			if diff := cmp.Diff(shown(at), shown(l)); diff != "" {
				t.Fatalf("seed %d, %d to %d (-want +got):\n%s", seed, l.Lo(), l.Hi(), diff)
			}
		}
	}
}
