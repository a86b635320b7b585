package store_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/msrchat/msrchat/client/store"
)

func at(ms int64) time.Time { return time.UnixMilli(ms) }

func TestADraftIsUnsentUntilTheServerHasAnswered(t *testing.T) {
	own := store.OwnState{Number: 4, Draft: "a"}
	own.SetDraft("a", at(1))
	if own.Unsent() {
		t.Errorf("nothing changed: %+v", own)
	}
	own.SetDraft("ab", at(2))
	sent := own
	own.SetDraft("abc", at(3)) // while the request is under way
	own.Answered(sent, store.OwnState{Number: 5, Draft: "ab"}, at(4))
	if own.Draft != "abc" || !own.DraftUnsent || own.Base != 5 {
		t.Errorf("after the first answer: %+v", own)
	}
	own.Answered(own, store.OwnState{Number: 6, Draft: "abc", DraftEdited: at(3)}, at(5))
	if own.Draft != "abc" || own.Unsent() || own.Number != 6 {
		t.Errorf("after the second answer: %+v", own)
	}
}

func TestAnUnsentDraftOutlivesAPush(t *testing.T) {
	own := store.OwnState{Number: 4}
	own.SetDraft("mine", at(2))
	own.Take(store.OwnState{Number: 7, Draft: "theirs", Read: 3, ReadOrdinal: 2})
	if own.Draft != "mine" || own.Base != 4 || own.Number != 7 || own.Read != 3 {
		t.Errorf("after a push: %+v", own)
	}
	own.SetDraft("mine too", at(3))
	if own.Base != 4 {
		t.Errorf("what was never seen counts as seen: %+v", own)
	}
	own.Take(store.OwnState{Number: 6, Draft: "late"})
	own.Take(store.OwnState{Number: 8, Draft: "mine too"})
	if own.Unsent() || own.Number != 8 {
		t.Errorf("after a push of the same: %+v", own)
	}
	own.Take(store.OwnState{Number: 9, Draft: "theirs"})
	if own.Draft != "theirs" {
		t.Errorf("nothing unsent, and a push: %+v", own)
	}
}

func TestNothingTypedIsLostWithALostDraft(t *testing.T) {
	for _, c := range []struct{ mine, theirs, want string }{
		{"mine", "theirs", "theirs\nmine"},
		{"mine", "all of mine", "all of mine"},
		{"mine", "", "mine"},
		{"", "theirs", "theirs"},
	} {
		own := store.OwnState{Number: 1, Draft: "before"}
		own.SetDraft(c.mine, at(2))
		own.Answered(own, store.OwnState{Number: 3, Draft: c.theirs}, at(9))
		if own.Draft != c.want || own.DraftUnsent != (c.want != c.theirs) || own.DraftUnsent && own.Base != 3 {
			t.Errorf("%q lost against %q: %+v", c.mine, c.theirs, own)
		}
	}
}

func TestAReadMarkNeverFalls(t *testing.T) {
	own := store.OwnState{Number: 1, Read: 5, ReadOrdinal: 5, ServerRead: 5}
	own.SetRead(9, 9)
	own.SetRead(4, 4)
	own.Take(store.OwnState{Number: 2, Read: 7, ReadOrdinal: 6})
	if own.Read != 9 || own.ServerRead != 7 || !own.Unsent() {
		t.Errorf("%+v", own)
	}
	own.Answered(own, store.OwnState{Number: 3, Read: 9, ReadOrdinal: 8}, at(1))
	if own.Read != 9 || own.ReadOrdinal != 8 || own.Unsent() {
		t.Errorf("the server knows the ordinal: %+v", own)
	}
}

// An answer that a newer state overtook says that the draft was accepted; the newer
// one is asked for again.
func TestAnOvertakenAnswerDoesNotUndoWhatOvertookIt(t *testing.T) {
	own := store.OwnState{Number: 1}
	own.SetDraft("mine", at(2))
	sent := own
	own.Take(store.OwnState{Number: 3, Draft: "mine and theirs"})
	own.Answered(sent, store.OwnState{Number: 2, Draft: "mine"}, at(3))
	if own.Unsent() || own.Number != 2 {
		t.Errorf("after the answer: %+v", own)
	}
	own.Take(store.OwnState{Number: 3, Draft: "mine and theirs"})
	if own.Draft != "mine and theirs" {
		t.Errorf("read anew: %+v", own)
	}
	own = store.OwnState{Number: 1}
	own.SetDraft("mine", at(2))
	sent = own
	own.Take(store.OwnState{Number: 3, Draft: "newest"})
	own.Answered(sent, store.OwnState{Number: 2, Draft: "older"}, at(3))
	if own.Draft != "mine" || !own.DraftUnsent || own.Number != 3 {
		t.Errorf("it is judged again by the newest: %+v", own)
	}
}

// server is the chat server's rules for one own state.
type server struct {
	state  store.OwnState
	number uint64 // of the draft
	clock  int64
}

func (s *server) set(sent store.OwnState) (store.OwnState, bool) {
	s.clock++
	changed := false
	if sent.Read > sent.ServerRead && sent.Read > s.state.Read {
		s.state.Read, s.state.ReadOrdinal, changed = sent.Read, sent.Read, true
	}
	edited := at(min(sent.DraftEdited.UnixMilli(), s.clock))
	if sent.DraftUnsent && sent.Draft != s.state.Draft && (sent.Base >= s.number || edited.After(s.state.DraftEdited)) {
		s.state.Draft, s.state.DraftEdited, s.number, changed = sent.Draft, edited, s.state.Number+1, true
	}
	if changed {
		s.state.Number++
	}
	return s.state, changed
}

// device is one store, with the requests and pushes that are under way.
type device struct {
	own     store.OwnState
	sent    *store.OwnState // the request under way
	answer  *store.OwnState // its answer
	pushes  []store.OwnState
	offline bool
}

// Random actions on several devices, with lost and late requests, answers and
// pushes: no answer takes away what was typed, and when all is quiet every device
// has what the server has.
func TestDevicesAgreeWhenAllIsQuiet(t *testing.T) {
	for seed := range uint64(2000) {
		rng := rand.New(rand.NewPCG(seed, 3))
		s := &server{}
		devices := make([]*device, 3)
		for i := range devices {
			devices[i] = &device{}
		}
		for n := range 80 {
			s.clock += rng.Int64N(5)
			d := devices[rng.IntN(len(devices))]
			step(t, rng, s, devices, d, n)
		}
		for _, d := range devices {
			d.pushes, d.offline = nil, false
			d.finish(t, s)
			d.lose()
		}
		for range 4 { // what one tells, the others read
			for _, d := range devices {
				d.own.Take(s.state)
				for n := 0; d.own.Unsent(); n++ {
					if n == 3 {
						t.Fatalf("seed %d: never settled: %+v, server %+v", seed, d.own, s.state)
					}
					answer, _ := s.set(d.own)
					d.own.Answered(d.own, answer, at(s.clock))
				}
			}
		}
		for i, d := range devices {
			if d.own.Draft != s.state.Draft || d.own.Read != s.state.Read || d.own.Number != s.state.Number {
				t.Fatalf("seed %d: device %d has %+v, the server %+v", seed, i, d.own, s.state)
			}
		}
	}
}

func step(t *testing.T, rng *rand.Rand, s *server, devices []*device, d *device, n int) {
	t.Helper()
	switch rng.IntN(8) {
	case 0, 1:
		text := fmt.Sprint("t", n)
		switch rng.IntN(3) {
		case 0:
			text = ""
		case 1:
			text = d.own.Draft + "+"
		}
		d.own.SetDraft(text, at(s.clock+rng.Int64N(7)-3))
	case 2:
		seq := rng.Uint64N(100)
		d.own.SetRead(seq, seq)
	case 3:
		if !d.offline && d.sent == nil && d.own.Unsent() {
			sent := d.own
			d.sent = &sent
		}
	case 4: // the server answers what is under way
		if d.sent == nil || d.answer != nil {
			return
		}
		answer, changed := s.set(*d.sent)
		d.answer = &answer
		for _, other := range devices {
			if changed && other != d && !other.offline && rng.IntN(4) > 0 {
				other.pushes = append(other.pushes, answer)
			}
		}
	case 5:
		d.finish(t, s)
	case 6:
		if len(d.pushes) > 0 {
			i := rng.IntN(len(d.pushes)) // late ones, too
			d.own.Take(d.pushes[i])
			d.pushes = append(d.pushes[:i], d.pushes[i+1:]...)
		}
	case 7:
		d.offline = !d.offline
		d.lose()
		if !d.offline {
			d.own.Take(s.state) // by the heads
		}
	}
}

// finish takes the answer, and reads what it does not have.
func (d *device) finish(t *testing.T, s *server) {
	t.Helper()
	if d.answer == nil {
		return
	}
	before := d.own
	d.own.Answered(*d.sent, *d.answer, at(s.clock))
	if before.DraftUnsent && !strings.Contains(d.own.Draft, before.Draft) {
		t.Fatalf("%q was typed and is lost: %+v after %+v", before.Draft, d.own, *d.answer)
	}
	d.sent, d.answer = nil, nil
	if d.own.Number < before.Number {
		d.own.Take(s.state)
	}
}

// lose breaks the connection.
func (d *device) lose() { d.sent, d.answer, d.pushes = nil, nil, nil }
