package probe

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/discovery"
)

// scene is five acknowledged messages of one talk, as numbers 11 to 15, and the
// log that has them.
type scene struct {
	book   *book
	due    []*message
	events []*chatv1.Event
	reader *line
}

func newScene() *scene {
	s := &scene{book: newBook(newMetrics(prometheus.NewRegistry())), reader: &line{user: 2}}
	for i := range 5 {
		m := &message{id: [16]byte{byte(i + 1)}, talk: 7, sender: 1, reader: 2, text: strings.Repeat("x", i+1), via: server{instance: "via"}, to: server{instance: "to"}}
		s.book.typed(m)
		s.book.acknowledged(m, uint64(11+i), s.reader)
		s.due = append(s.due, m)
		s.events = append(s.events, s.event(i, uint64(11+i)))
	}
	return s
}

// event is message i as the log has it under a number.
func (s *scene) event(i int, seq uint64) *chatv1.Event {
	m := s.due[min(i, len(s.due)-1)]
	return &chatv1.Event{ConversationId: m.talk, Seq: seq, SenderId: m.sender, ClientMsgId: append([]byte(nil), m.id[:]...), Text: m.text}
}

func TestExamine(t *testing.T) {
	strange := &chatv1.Event{ConversationId: 7, Seq: 13, SenderId: 9, ClientMsgId: make([]byte, 16), Text: "another probe's"}
	for _, test := range []struct {
		name  string
		spoil func(*scene)
		first uint64
		want  kind // "" for none
	}{
		{"all is well", func(*scene) {}, 1, ""},
		{"nothing after a number", func(s *scene) { s.events = s.events[:2] }, 1, lost},
		{"a hole", func(s *scene) { s.events = append(s.events[:2], s.events[3:]...) }, 1, lost},
		{"another message there", func(s *scene) { s.events[2] = strange }, 1, lost},
		{"under another number", func(s *scene) { s.events[2] = strange; s.events = append(s.events, s.event(2, 16)) }, 1, altered},
		{"another text", func(s *scene) { s.events[2].Text = "y" }, 1, altered},
		{"another sender", func(s *scene) { s.events[2].SenderId = 5 }, 1, altered},
		{"twice", func(s *scene) { s.events = append(s.events, s.event(2, 16)) }, 1, doubled},
		{"pushed under another number", func(s *scene) { s.due[2].pushed = 99 }, 1, altered},
		{"a hole between two of ours", func(s *scene) {
			s.due = append(s.due[:2], s.due[3:]...) // number 13 is somebody else's
			s.events = append(s.events[:2], s.events[3:]...)
		}, 1, lost},
		{"trimmed", func(s *scene) { s.events = s.events[2:] }, 13, ""},
		{"trimmed, and one lost behind", func(s *scene) { s.events = s.events[3:] }, 13, lost},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newScene()
			test.spoil(s)
			faults := s.book.examine(s.due, s.events, test.first, 15)
			switch {
			case test.want == "" && len(faults) > 0:
				t.Errorf("found %v", faults)
			case test.want != "" && (len(faults) == 0 || faults[0].kind != test.want):
				t.Errorf("found %v, want %s", faults, test.want)
			}
		})
	}
}

func TestPushes(t *testing.T) {
	s := newScene()
	if faults := s.book.shown(s.reader, s.event(1, 12)); len(faults) > 0 {
		t.Errorf("a push: %v", faults)
	}
	if faults := s.book.shown(s.reader, s.event(1, 12)); len(faults) > 0 {
		t.Errorf("the same again: %v", faults)
	}
	if faults := s.book.shown(s.reader, s.event(1, 13)); len(faults) != 1 || faults[0].kind != doubled {
		t.Errorf("under another number: %v", faults)
	}
	wrong := s.event(0, 11)
	wrong.Text = "y"
	if faults := s.book.shown(s.reader, wrong); len(faults) != 1 || faults[0].kind != altered {
		t.Errorf("another text: %v", faults)
	}
	if faults := s.book.shown(&line{user: 1}, s.event(2, 99)); len(faults) > 0 {
		t.Errorf("the sender's own device: %v", faults)
	}
}

// Told is who was pushed a message, or a head that is at least as high.
func TestUntold(t *testing.T) {
	s := newScene()
	s.book.told(s.reader, &chatv1.Heads{Heads: []*chatv1.Head{{ConversationId: 7, Seq: 13}, {ConversationId: 8, Seq: 99}}})
	s.book.shown(s.reader, s.event(4, 15))
	if left := s.book.untold(); len(left) != 0 {
		t.Errorf("a push tells of all before it, but %v count as untold", left)
	}
	s = newScene()
	s.book.told(s.reader, &chatv1.Heads{Heads: []*chatv1.Head{{ConversationId: 7, Seq: 13}}})
	if left := s.book.untold(); len(left) != 2 {
		t.Errorf("%d untold, want the two above the head", len(left))
	}
	s.reader.err = errEnded
	if left := s.book.untold(); len(left) != 0 {
		t.Errorf("of a reader who went away %d are untold", len(left))
	}
}

func TestOrder(t *testing.T) {
	numbered := func(seqs ...uint64) (list []*message) {
		for _, seq := range seqs {
			list = append(list, &message{seq: seq})
		}
		return list
	}
	for _, test := range []struct {
		name   string
		list   []*message
		before uint64
		clean  bool
		wrong  bool
	}{
		{"rising", numbered(3, 4, 9), 2, true, false},
		{"overtaken", numbered(3, 9, 4), 2, true, true},
		{"overtaken, but offered twice", numbered(3, 9, 4), 2, false, false},
		{"below what was acknowledged before", numbered(3, 4), 5, false, true},
	} {
		if got := len(ordered(test.list, test.before, test.clean)) > 0; got != test.wrong {
			t.Errorf("%s: fault %v, want %v", test.name, got, test.wrong)
		}
	}
}

func TestVerdict(t *testing.T) {
	s := newState(100)
	expect := func(when string, code int, text string) {
		t.Helper()
		if got, said := s.verdict(time.Now()); got != code || !strings.Contains(said, text) {
			t.Errorf("%s: %d %q, want %d … %q", when, got, said, code, text)
		}
	}
	expect("at first", http.StatusTooManyRequests, "0 of 100")
	s.trouble("no database")
	expect("in trouble", http.StatusTooManyRequests, "no database")
	s.count(100)
	s.prove()
	expect("proven", http.StatusOK, "100 messages")
	s.trouble("no database")
	expect("in new trouble", http.StatusOK, "100 messages")
	s.good = time.Now().Add(-2 * patience)
	expect("in long trouble", http.StatusTooManyRequests, "no database")
	s.count(1)
	expect("recovered", http.StatusOK, "101 messages")
	s.broken(fault{lost, "one"}, "v2")
	expect("a newcomer's fault", http.StatusTooManyRequests, "release v2")
	s.suspected = time.Now().Add(-2 * lingers)
	expect("the newcomer is gone", http.StatusOK, "101 messages")
	s.broken(fault{lost, "two"}, "")
	s.broken(fault{doubled, "three"}, "")
	expect("the own fault", http.StatusServiceUnavailable, Broken+": lost: two (2 in all")
	s.count(1)
	expect("for good", http.StatusServiceUnavailable, Broken)
}

func TestNewcomers(t *testing.T) {
	row := func(id, release string, passing bool) discovery.Instance {
		return discovery.Instance{ID: id, Passing: passing, Meta: map[string]string{discovery.MetaRelease: release}}
	}
	f := fleet{home: "b"}
	if _, known := f.others(); known {
		t.Error("the fleet is known before Consul answered")
	}
	f.set([]discovery.Instance{row("a", "v1", true), row("b", "v2", false)})
	if who := f.newcomer("v2"); who != "" {
		t.Errorf("%s was there first", who)
	}
	f.set([]discovery.Instance{row("a", "v1", true), row("b", "v2", true), row("c", "v3", true), row("d", "v1", false)})
	if who := f.newcomer("v2"); who != "v3" {
		t.Errorf("the newcomer is %q, want v3", who)
	}
	if others, _ := f.others(); len(others) != 2 || others[0].instance != "a" || others[1].instance != "c" {
		t.Errorf("others: %v, want the passing ones without the own", others)
	}
	f.set([]discovery.Instance{row("b", "v2", true)})
	if who := f.newcomer("v2"); who != "v3" {
		t.Errorf("the newcomer just left: %q, want v3", who)
	}
	f.seen["v3"] = time.Now().Add(-2 * lingers)
	if who := f.newcomer("v2"); who != "" {
		t.Errorf("%q is gone for long", who)
	}
}

func TestValidate(t *testing.T) {
	err := Config{Home: "nowhere", Slot: -1, Messages: -1}.Validate()
	for _, want := range []string{"instance", "nowhere", "addresses to bind", "slot", "messages"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not tell of %s", err, want)
		}
	}
}
