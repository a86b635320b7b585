package probe

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/content"
	"github.com/msrchat/msrchat/shared/discovery"
)

// scene is five acknowledged messages of one conversation, as numbers 11 to 15,
// and the log that has them.
type scene struct {
	tracker *tracker
	due     []*message
	events  []*chatv1.Event
	reader  *conn
}

func newScene() *scene {
	s := &scene{tracker: newTracker(newMetrics(prometheus.NewRegistry())), reader: &conn{user: 2}}
	for i := range 5 {
		m := &message{
			id: [16]byte{byte(i + 1)}, conversation: 7, sender: 1, reader: 2, text: strings.Repeat("x", i+1),
			via: server{instance: "via"}, to: server{instance: "to"},
		}
		s.tracker.sending(m)
		s.tracker.acknowledged(m, uint64(11+i), s.reader)
		s.due = append(s.due, m)
		s.events = append(s.events, s.event(i, uint64(11+i)))
	}
	return s
}

// event is message i as the log has it under a number.
func (s *scene) event(i int, seq uint64) *chatv1.Event {
	m := s.due[min(i, len(s.due)-1)]
	return &chatv1.Event{
		ConversationId: m.conversation, Seq: seq, SenderId: m.sender, ClientMsgId: bytes.Clone(m.id[:]),
		Kind: content.Text, Body: []byte(m.text),
	}
}

func TestALogThatBreaksAPromiseIsFound(t *testing.T) {
	foreign := &chatv1.Event{
		ConversationId: 7, Seq: 13, SenderId: 9, ClientMsgId: make([]byte, 16), Kind: content.Text,
		Body: []byte("another probe's"),
	}
	for _, test := range []struct {
		name  string
		spoil func(*scene)
		first uint64
		want  kind // "" for none
	}{
		{"the log as it should be", func(*scene) {}, 1, ""},
		{"nothing after a number", func(s *scene) { s.events = s.events[:2] }, 1, lost},
		{"a gap", func(s *scene) { s.events = append(s.events[:2], s.events[3:]...) }, 1, lost},
		{"another message there", func(s *scene) { s.events[2] = foreign }, 1, lost},
		{"under another number", func(s *scene) {
			s.events[2] = foreign
			s.events = append(s.events, s.event(2, 16))
		}, 1, altered},
		{"another text", func(s *scene) { s.events[2].Body = []byte("y") }, 1, altered},
		{"another kind", func(s *scene) { s.events[2].Kind++ }, 1, altered},
		{"another sender", func(s *scene) { s.events[2].SenderId = 5 }, 1, altered},
		{"twice", func(s *scene) { s.events = append(s.events, s.event(2, 16)) }, 1, doubled},
		{"pushed under another number", func(s *scene) { s.due[2].pushed = 99 }, 1, altered},
		{"a gap between two of ours", func(s *scene) {
			s.due = append(s.due[:2], s.due[3:]...) // number 13 is another probe's
			s.events = append(s.events[:2], s.events[3:]...)
		}, 1, lost},
		{"trimmed", func(s *scene) { s.events = s.events[2:] }, 13, ""},
		{"trimmed, and one lost after it", func(s *scene) { s.events = s.events[3:] }, 13, lost},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newScene()
			test.spoil(s)
			faults := s.tracker.compare(s.due, s.events, test.first, 15)
			switch {
			case test.want == "" && len(faults) > 0:
				t.Errorf("found %v", faults)
			case test.want != "" && (len(faults) == 0 || faults[0].kind != test.want):
				t.Errorf("found %v, want %s", faults, test.want)
			}
		})
	}
}

func TestAPushThatDiffersFromItsMessageIsFound(t *testing.T) {
	s := newScene()
	if faults := s.tracker.pushed(s.reader, s.event(1, 12)); len(faults) > 0 {
		t.Errorf("a push: %v", faults)
	}
	if faults := s.tracker.pushed(s.reader, s.event(1, 12)); len(faults) > 0 {
		t.Errorf("the same again: %v", faults)
	}
	if faults := s.tracker.pushed(s.reader, s.event(1, 13)); len(faults) != 1 || faults[0].kind != doubled {
		t.Errorf("under another number: %v", faults)
	}
	wrong := s.event(0, 11)
	wrong.Body = []byte("y")
	if faults := s.tracker.pushed(s.reader, wrong); len(faults) != 1 || faults[0].kind != altered {
		t.Errorf("another text: %v", faults)
	}
	if faults := s.tracker.pushed(&conn{user: 1}, s.event(2, 99)); len(faults) > 0 {
		t.Errorf("the sender's own connection: %v", faults)
	}
}

// A reader that got a push or a head that is at least as high has what it needs.
func TestUndeliveredIsWhatAConnectedReaderGotNothingOf(t *testing.T) {
	s := newScene()
	s.tracker.heads(s.reader, &chatv1.Heads{Heads: []*chatv1.Head{
		{ConversationId: 7, Seq: 13}, {ConversationId: 8, Seq: 99},
	}})
	s.tracker.pushed(s.reader, s.event(4, 15))
	if left := s.tracker.undelivered(); len(left) != 0 {
		t.Errorf("a push names all before it, but %v count as undelivered", left)
	}
	s = newScene()
	s.tracker.heads(s.reader, &chatv1.Heads{Heads: []*chatv1.Head{{ConversationId: 7, Seq: 13}}})
	if left := s.tracker.undelivered(); len(left) != 2 {
		t.Errorf("%d undelivered, want the two above the head", len(left))
	}
	s.reader.err = errEnded
	if left := s.tracker.undelivered(); len(left) != 0 {
		t.Errorf("of a reader that disconnected %d are undelivered", len(left))
	}
}

func TestNumbersRiseInTheOrderSent(t *testing.T) {
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
		once   bool
		wrong  bool
	}{
		{"rising", numbered(3, 4, 9), 2, true, false},
		{"overtaken", numbered(3, 9, 4), 2, true, true},
		{"overtaken, but sent twice", numbered(3, 9, 4), 2, false, false},
		{"below what was acknowledged before", numbered(3, 4), 5, false, true},
	} {
		if got := len(ordered(test.list, test.before, test.once)) > 0; got != test.wrong {
			t.Errorf("%s: fault %v, want %v", test.name, got, test.wrong)
		}
	}
}

func TestOnlyABrokenPromiseIsCritical(t *testing.T) {
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
	s.verifiedAt = time.Now().Add(-2 * warnAfter)
	expect("in long trouble", http.StatusTooManyRequests, "no database")
	s.count(1)
	expect("recovered", http.StatusOK, "101 messages")
	s.broken(fault{lost, "one"}, "v2")
	expect("suspected of a newer release", http.StatusTooManyRequests, "release v2")
	s.suspectedAt = time.Now().Add(-2 * suspectFor)
	expect("that release is gone", http.StatusOK, "101 messages")
	s.broken(fault{lost, "two"}, "")
	s.broken(fault{doubled, "three"}, "")
	expect("the own fault", http.StatusServiceUnavailable, Broken+": lost: two (2 in all")
	s.count(1)
	expect("for good", http.StatusServiceUnavailable, Broken)
}

func TestAReleaseThatCameLaterIsSuspectedForAWhile(t *testing.T) {
	row := func(id, release string, passing bool) discovery.Instance {
		return discovery.Instance{ID: id, Passing: passing, Meta: map[string]string{discovery.MetaRelease: release}}
	}
	c := catalog{home: "b"}
	if _, loaded := c.others(); loaded {
		t.Error("the catalog is loaded before Consul answered")
	}
	c.set([]discovery.Instance{row("a", "v1", true), row("b", "v2", false)})
	if who := c.newer("v2"); who != "" {
		t.Errorf("%s was there first", who)
	}
	c.set([]discovery.Instance{row("a", "v1", true), row("b", "v2", true), row("c", "v3", true), row("d", "v1", false)})
	if who := c.newer("v2"); who != "v3" {
		t.Errorf("the newer release is %q, want v3", who)
	}
	if others, _ := c.others(); len(others) != 2 || others[0].instance != "a" || others[1].instance != "c" {
		t.Errorf("others: %v, want the passing ones without its own", others)
	}
	c.set([]discovery.Instance{row("b", "v2", true)})
	if who := c.newer("v2"); who != "v3" {
		t.Errorf("it just left: %q, want v3", who)
	}
	c.seen["v3"] = time.Now().Add(-2 * suspectFor)
	if who := c.newer("v2"); who != "" {
		t.Errorf("%q has been gone for long", who)
	}
}

func TestAWrongConfigurationIsRefused(t *testing.T) {
	err := Config{Home: "nowhere", Slot: -1, Messages: -1}.Validate()
	for _, want := range []string{"instance", "nowhere", "address to bind", "slot", "messages"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
}
