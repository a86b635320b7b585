package device_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/client/store"
	"github.com/msrchat/msrchat/proof/check"
	"github.com/msrchat/msrchat/proof/device"
	"github.com/msrchat/msrchat/proof/journal"
	"github.com/msrchat/msrchat/shared/testenv"
	"github.com/msrchat/msrchat/shared/text"
)

// open opens a device of a person and has it join.
func (w *world) open(t *testing.T, person, session int, name string, change ...func(*device.Options)) *device.Device {
	t.Helper()
	opt := device.Options{Gate: w, Session: w.people[person].Sessions[session], Name: name}
	for _, c := range change {
		c(&opt)
	}
	d, err := device.Open(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	if !w.away.Load() {
		if err := d.Join(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func (w *world) say(t *testing.T, d *device.Device, text string) client.MessageID {
	t.Helper()
	id, err := d.Say(t.Context(), w.conversation, text)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// settle waits until all devices have settled what they typed and know n messages.
func (w *world) settle(t *testing.T, n uint64, devices ...*device.Device) {
	t.Helper()
	for _, d := range devices {
		testenv.Until(t, fmt.Sprintf("%s is shown %d messages", d.Name, n), func() bool {
			return d.Unsettled() == 0 && d.Top(w.conversation) == n
		})
	}
}

// entries are a device's entries of a kind.
func entries(d *device.Device, kind journal.Kind) (found []journal.Entry) {
	for e := range d.Journal().All() {
		if e.Kind == kind {
			found = append(found, e)
		}
	}
	return found
}

// prove checks the devices' journals against the database.
func (w *world) prove(t *testing.T, devices ...*device.Device) *check.Report {
	t.Helper()
	var journals []*journal.Journal
	for _, d := range devices {
		journals = append(journals, d.Journal())
	}
	run, err := check.Read(t.Context(), w.db, journals)
	if err != nil {
		t.Fatal(err)
	}
	run.Quiet, run.Heartbeat = time.Now(), heartbeat
	report := run.Check()
	if err := report.Err(); err != nil {
		t.Errorf("%v\n%s", err, report)
	}
	return report
}

func TestJournal(t *testing.T) {
	w := newWorld(t, 2, 2)
	ann, other, bob := w.open(t, 0, 0, "ann"), w.open(t, 0, 1, "other"), w.open(t, 1, 0, "bob")
	first := w.say(t, ann, "你好")
	w.settle(t, 1, ann, other, bob)
	w.say(t, bob, "hello")
	w.settle(t, 2, ann, other, bob)
	late := w.open(t, 1, 1, "late")
	w.say(t, other, "third")
	w.settle(t, 3, ann, other, bob, late)

	var kinds []string
	for e := range ann.Journal().All() {
		kinds = append(kinds, string(e.Kind))
	}
	got := strings.Join(kinds, " ")
	if !strings.HasPrefix(got, "loggedin online joined joined ") || strings.Count(got, "shown") != 3 {
		t.Errorf("ann's journal is %s", got)
	}
	typed, acked := entries(ann, journal.Typed), entries(ann, journal.Acked)
	if len(typed) != 1 || len(acked) != 1 {
		t.Fatalf("typed %v, acknowledged %v", typed, acked)
	}
	want := journal.Entry{
		At: acked[0].At, Kind: journal.Acked, ID: first, Conversation: w.conversation, Seq: 1,
		Sender: w.people[0].ID, Text: journal.Digest("你好"),
	}
	if acked[0] != want {
		t.Errorf("acknowledged %+v, want %+v", acked[0], want)
	}
	if typed[0].ID != first || typed[0].Text != want.Text || typed[0].At.After(acked[0].At) {
		t.Errorf("typed %+v", typed[0])
	}
	shown := entries(late, journal.Shown)
	if len(shown) != 1 || shown[0].Seq != 3 || shown[0].Sender != w.people[0].ID {
		t.Errorf("the late device was shown %+v", shown)
	}
	joined := entries(late, journal.Joined)
	if len(joined) != 2 || joined[0].Conversation != w.conversation || joined[0].Seq != 2 ||
		joined[1].Conversation != 0 {
		t.Errorf("the late device joined at %+v", joined)
	}
	if report := w.prove(t, ann, other, bob, late); report.Complete != 4 || report.Shown != 10 {
		t.Errorf("%s", report)
	}
	// Everybody's journal is needed: without one, its messages come from nowhere.
	run, err := check.Read(t.Context(), w.db, []*journal.Journal{ann.Journal()})
	if err != nil {
		t.Fatal(err)
	}
	if run.Interrupted = true; run.Check().Count(check.Untyped) != 2 {
		t.Errorf("%s", run.Check())
	}
}

func TestRefusedMessage(t *testing.T) {
	w := newWorld(t, 2, 1)
	ann, bob := w.open(t, 0, 0, "ann"), w.open(t, 1, 0, "bob")
	nobody, err := ann.Client().Contact(t.Context(), "nobody")
	if err != nil {
		t.Fatal(err)
	}
	id, err := ann.Say(t.Context(), nobody.ID, "hello?")
	if err != nil {
		t.Fatal(err)
	}
	w.say(t, ann, "hello!")
	w.settle(t, 1, ann, bob)
	refused := entries(ann, journal.Refused)
	if len(refused) != 1 || refused[0].ID != id || !strings.HasPrefix(refused[0].Detail, "not_found: ") {
		t.Errorf("refused %+v", refused)
	}
	if _, err := ann.Say(t.Context(), w.conversation, " "); err == nil {
		t.Error("a blank message was accepted")
	}
	if report := w.prove(t, ann, bob); report.Typed != 2 || report.Refused != 1 {
		t.Errorf("%s", report)
	}
}

// A device that is opened again on its store sends what was left, and continues
// where it was.
func TestOpenAgain(t *testing.T) {
	w := newWorld(t, 2, 1)
	ann, bob := w.open(t, 0, 0, "ann"), w.open(t, 1, 0, "bob")
	w.say(t, bob, "first")
	w.settle(t, 1, ann, bob)
	bob.Close()
	if left := entries(bob, journal.Left); len(left) != 1 || bob.Online() {
		t.Errorf("left %v, online %v", left, bob.Online())
	}
	kept := store.NewMemory(16)
	keep := func(o *device.Options) { o.Store = kept }
	away := w.open(t, 1, 0, "bob again", keep)
	w.say(t, ann, "second")
	w.settle(t, 2, ann)
	testenv.Until(t, "bob sees it", func() bool { return away.Top(w.conversation) == 2 })
	away.Close()
	w.say(t, ann, "third")
	w.settle(t, 3, ann)

	w.away.Store(true)
	resume := func(o *device.Options) { o.Store, o.Journal = kept, away.Journal() }
	// The store knows the server; it must not find it.
	if err := kept.SetMeta(t.Context(), "endpoints", ""); err != nil {
		t.Fatal(err)
	}
	offline := w.open(t, 1, 0, "bob again", resume)
	w.say(t, offline, "typed without a connection")
	testenv.Until(t, "it is told to be offline", func() bool { return len(entries(offline, journal.Offline)) > 0 })
	offline.Close()
	w.away.Store(false)
	back := w.open(t, 1, 0, "bob again", resume)
	w.settle(t, 4, ann, back)
	if report := w.prove(t, ann, bob, back); report.Acked != 4 || report.Complete != 2 {
		t.Errorf("%s", report)
	}
}

// Outcomes that the client could not report, because nobody read its events,
// are looked up.
func TestOutcomesThatWereNotTold(t *testing.T) {
	w := newWorld(t, 2, 1)
	bob := w.open(t, 1, 0, "bob")
	w.away.Store(true)
	ann := w.open(t, 0, 0, "ann", func(o *device.Options) { o.Change = func(c *client.Options) { c.EventBuffer = 1 } })
	const n = 500 // many more than the client keeps for a reader
	for i := range n {
		w.say(t, ann, fmt.Sprint("message ", i))
	}
	resume := ann.Stall()
	w.away.Store(false)
	testenv.Until(t, "bob is shown all", func() bool { return bob.Top(w.conversation) == n })
	resume()
	testenv.Until(t, "ann knows of all outcomes", func() bool { return ann.Unsettled() == 0 })
	if acked := entries(ann, journal.Acked); len(acked) != n {
		t.Errorf("%d acknowledged", len(acked))
	}
}

func TestOpenRefuses(t *testing.T) {
	w := &world{}
	session := client.Session{Token: []byte("t"), User: client.User{ID: 1}}
	for name, opt := range map[string]device.Options{
		"no name":    {Gate: w, Session: session},
		"no session": {Gate: w, Name: "a"},
		"no gate":    {Session: session, Name: "a"},
		"only sends": {Gate: w, Session: session, Name: "a", Change: func(o *client.Options) { o.SendOnly = true }},
	} {
		if d, err := device.Open(t.Context(), opt); err == nil {
			d.Close()
			t.Errorf("%s: opened", name)
		}
	}
}

func TestCrowd(t *testing.T) {
	w := newWorld(t, 10, 2)
	crowd, err := device.NewCrowd(t.Context(), device.CrowdOptions{
		Gate: w, People: w.people, Conversations: w.conversations, Seed: 7,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer crowd.Close()
	talking, stop := context.WithCancel(t.Context())
	var talk errgroup.Group
	talk.Go(func() error { return crowd.Talk(talking, 200) })
	testenv.Until(t, "a second of talk", func() bool { return crowd.Counts().Typed >= 200 })
	stop()
	if err := talk.Wait(); err != nil {
		t.Fatal(err)
	}
	waiting, cancel := context.WithTimeout(t.Context(), testenv.Patience)
	defer cancel()
	if quiet, err := crowd.Quiet(waiting, heartbeat); err != nil || quiet.IsZero() || crowd.Unsettled() != 0 {
		t.Fatalf("quiet at %v, %d unsettled (%v)", quiet, crowd.Unsettled(), err)
	}
	report := w.prove(t, crowd.Devices()...)
	if report.Devices != 20 || report.Complete != 20 || report.Typed != int(crowd.Counts().Typed) ||
		len(crowd.Journals()) != 20 {
		t.Errorf("%+v\n%s", crowd.Counts(), report)
	}
	// Everybody talked, with everybody's other.
	for _, d := range crowd.Devices() {
		if len(entries(d, journal.Typed)) == 0 {
			t.Errorf("%s said nothing", d.Name)
		}
	}
}

// Somebody who cannot send stops typing, and the crowd does not become quiet.
func TestCrowdWithoutAServer(t *testing.T) {
	w := newWorld(t, 2, 1)
	opt := device.CrowdOptions{Gate: w, People: w.people, Conversations: w.conversations, MaxUnsettled: 5}
	opt.Change = func(o *client.Options) {
		o.Backoff = client.Backoff{First: time.Hour, Base: time.Hour, Cap: time.Hour}
	}
	crowd, err := device.NewCrowd(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	defer crowd.Close()
	w.stop()
	talking, stop := context.WithCancel(t.Context())
	var talk errgroup.Group
	talk.Go(func() error { return crowd.Talk(talking, 1000) })
	testenv.Until(t, "everybody is held back", func() bool { return crowd.Counts().HeldBack >= 100 })
	stop()
	if err := talk.Wait(); err != nil {
		t.Fatal(err)
	}
	if n := crowd.Unsettled(); n != 10 {
		t.Errorf("%d unsettled, want 5 for each of two devices", n)
	}
	waiting, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	quiet, err := crowd.Quiet(waiting, heartbeat)
	if err == nil || !quiet.IsZero() ||
		!strings.Contains(err.Error(), "2 of 2 devices are offline, 10 messages unsettled") {
		t.Errorf("quiet at %v: %v", quiet, err)
	}
	if err := crowd.Talk(t.Context(), 0); err == nil {
		t.Error("talked at rate 0")
	}
}

func TestCrowdOfNobody(t *testing.T) {
	if _, err := device.NewCrowd(t.Context(), device.CrowdOptions{Gate: &world{}}); err == nil {
		t.Error("made a crowd of nobody")
	}
}

func TestTexts(t *testing.T) {
	sizes := []int{1, 20, text.MaxMessageRunes}
	a, b := device.NewTexts(3, sizes...), device.NewTexts(3, sizes...)
	seen, lengths := make(map[string]bool), make(map[int]bool)
	for range 200 {
		s := a.Next()
		if s != b.Next() {
			t.Fatal("one seed made two texts")
		}
		if err := text.Message(s); err != nil || seen[s] {
			t.Fatalf("%q: %v, or seen before", s, err)
		}
		seen[s] = true
		lengths[len([]rune(s))] = true
	}
	if got := slices.Sorted(maps.Keys(lengths)); !slices.Contains(got, 20) || got[len(got)-1] != text.MaxMessageRunes {
		t.Errorf("lengths %v", got)
	}
}
