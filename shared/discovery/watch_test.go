package discovery_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/consul/api"

	"github.com/msrchat/msrchat/shared/discovery"
	"github.com/msrchat/msrchat/shared/discovery/consul"
)

// answer is one scripted reply of the fake agent.
type answer struct {
	index    int    // X-Consul-Index; -1 leaves the header out
	status   int    // 0 means 200
	ids      string // one letter per instance; lower case ones fail their check
	filtered bool
}

// agent is a fake of one endpoint. It gives the scripted answers in turn, then
// blocks like Consul does. It records what it was asked.
type agent struct {
	t      *testing.T
	url    string
	mu     sync.Mutex // owns the fields below
	script []answer
	asked  []string // the index parameters
	last   answer
	more   chan struct{} // closed and replaced by say
}

func newAgent(t *testing.T, script ...answer) *agent {
	t.Helper()
	a := &agent{t: t, script: script, more: make(chan struct{})}
	srv := httptest.NewServer(a)
	a.url = srv.Listener.Addr().String()
	t.Cleanup(func() { srv.CloseClientConnections(); srv.Close() })
	return a
}

func (a *agent) say(next ...answer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.script = append(a.script, next...)
	close(a.more)
	a.more = make(chan struct{})
}

func (a *agent) questions() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]string(nil), a.asked...)
}

func (a *agent) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	wait, err := time.ParseDuration(r.URL.Query().Get("wait"))
	if err != nil || r.URL.Path != "/v1/health/service/chat" {
		a.t.Errorf("asked %s: %v", r.URL, err)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	a.mu.Lock()
	a.asked = append(a.asked, r.URL.Query().Get("index"))
	for len(a.script) == 0 {
		more := a.more
		a.mu.Unlock()
		select {
		case <-more:
			a.mu.Lock()
		case <-r.Context().Done():
			return
		case <-timer.C:
			a.mu.Lock()
			a.script = append(a.script, a.last)
		}
	}
	now := a.script[0]
	a.script, a.last = a.script[1:], now
	a.mu.Unlock()

	if now.status != 0 {
		http.Error(w, "No cluster leader", now.status)
		return
	}
	if now.index >= 0 {
		w.Header().Set("X-Consul-Index", strconv.Itoa(now.index))
	}
	if now.filtered {
		w.Header().Set("X-Consul-Results-Filtered-By-ACLs", "true")
	}
	entries := []*api.ServiceEntry{}
	for _, c := range now.ids {
		state := api.HealthPassing
		if c >= 'a' {
			state = api.HealthCritical
			c -= 'a' - 'A'
		}
		entries = append(entries, &api.ServiceEntry{
			Node: &api.Node{Address: "10.0.0.1"},
			Service: &api.AgentService{
				ID:   "chat-" + string(c),
				Port: 5,
				Meta: map[string]string{"instance": string(c)},
			},
			Checks: api.HealthChecks{{Status: state}},
		})
	}
	if err := json.NewEncoder(w).Encode(entries); err != nil {
		a.t.Error(err)
	}
}

// quick makes the rules observable in milliseconds.
var quick = discovery.Options{
	EmptyAfter: 150 * time.Millisecond, WaitTime: 10 * time.Second,
	MinInterval: time.Millisecond, MaxBackoff: 5 * time.Millisecond,
}

// watch runs a watcher and returns it with the lists it reports, in letters.
func watch(t *testing.T, addr string, opts discovery.Options) (*discovery.Watcher, <-chan string) {
	t.Helper()
	catalog, err := consul.New(addr)
	if err != nil {
		t.Fatal(err)
	}
	lists := make(chan string, 100)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	w := discovery.NewWatcher(catalog, "chat", opts)
	go func() {
		defer close(ended)
		if err := w.Run(ctx, func(list []discovery.Instance) { lists <- letters(list) }); err != nil {
			t.Errorf("watch: %v", err)
		}
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return w, lists
}

func letters(list []discovery.Instance) string {
	text := ""
	for _, i := range list {
		if !i.Passing {
			text += "!"
		}
		text += i.ID
	}
	return text
}

func next(t *testing.T, lists <-chan string) string {
	t.Helper()
	select {
	case l := <-lists:
		return l
	case <-time.After(15 * time.Second):
		t.Fatal("nothing was reported")
		return ""
	}
}

// expect reads as many lists as are wanted and checks that no other follows
// before the marker, an instance M that is added at the end.
func expect(t *testing.T, a *agent, lists <-chan string, want ...string) {
	t.Helper()
	a.say(answer{index: 1 << 30, ids: "M"})
	var got []string
	for {
		l := next(t, lists)
		if l == "M" {
			break
		}
		got = append(got, l)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestWatchReports(t *testing.T) {
	for _, c := range []struct {
		name   string
		opts   func(*discovery.Options)
		script []answer
		want   []string
	}{
		{
			"changes in order of the id", nil,
			[]answer{{index: 5, ids: "BA"}, {index: 6, ids: "ABC"}},
			[]string{"AB", "ABC"},
		},
		{"a failing check", nil, []answer{{index: 5, ids: "AB"}, {index: 6, ids: "Ab"}}, []string{"AB", "A!B"}},
		{
			"the same content once", nil,
			[]answer{{index: 5, ids: "AB"}, {index: 6, ids: "BA"}, {index: 7, ids: "A"}},
			[]string{"AB", "A"},
		},
		{"an empty start at once", nil, []answer{{index: 5}, {index: 6, ids: "A"}}, []string{"", "A"}},
		{
			"through an error, the last good list stays", nil,
			[]answer{{index: 5, ids: "A"}, {status: 500}, {status: 500}, {index: 6, ids: "AB"}},
			[]string{"A", "AB"},
		},
		{"no short emptiness", nil, []answer{{index: 5, ids: "A"}, {index: 6}, {index: 7, ids: "A"}}, []string{"A"}},
		{
			"no emptiness by missing rights", nil,
			[]answer{{index: 5, ids: "A"}, {index: 6, filtered: true}, {index: 7, ids: "AB"}},
			[]string{"A", "AB"},
		},
		{
			"only passing ones", passingOnly,
			[]answer{{index: 5, ids: "Ab"}, {index: 6, ids: "AB"}, {index: 7, ids: "aB"}},
			[]string{"A", "AB", "B"},
		},
		{
			"only passing: no change in a failing one", passingOnly,
			[]answer{{index: 5, ids: "A"}, {index: 6, ids: "Ab"}, {index: 7, ids: "A"}},
			[]string{"A"},
		},
		{
			"only passing: none passes, at once", passingOnly,
			[]answer{{index: 5, ids: "A"}, {index: 6, ids: "a"}},
			[]string{"A", ""},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			opts := quick
			opts.EmptyAfter = time.Hour
			if c.opts != nil {
				c.opts(&opts)
			}
			a := newAgent(t, c.script...)
			_, lists := watch(t, a.url, opts)
			expect(t, a, lists, c.want...)
		})
	}
}

func passingOnly(o *discovery.Options) { o.OnlyPassing = true }

func TestAnEmptyListIsBelievedAfterAWhile(t *testing.T) {
	a := newAgent(t, answer{index: 5, ids: "A"}, answer{index: 6})
	_, lists := watch(t, a.url, quick)
	if got := next(t, lists); got != "A" {
		t.Fatalf("first: %q", got)
	}
	start := time.Now()
	if got := next(t, lists); got != "" {
		t.Fatalf("then: %q", got)
	}
	if took := time.Since(start); took < quick.EmptyAfter-20*time.Millisecond {
		t.Errorf("believed after %v, want %v", took, quick.EmptyAfter)
	}
}

func TestAnErrorStartsTheWaitForEmptinessAnew(t *testing.T) {
	// Were the errors overlooked, the second empty answer would complete the wait.
	opts := quick
	opts.EmptyAfter = 400 * time.Millisecond
	a := newAgent(t, answer{index: 5, ids: "A"}, answer{index: 6})
	_, lists := watch(t, a.url, opts)
	next(t, lists)
	time.AfterFunc(200*time.Millisecond, func() { a.say(answer{status: 500}, answer{index: 6}) })
	start := time.Now()
	if got := next(t, lists); got != "" || time.Since(start) < 550*time.Millisecond {
		t.Errorf("%q after %v", got, time.Since(start))
	}
}

func TestTheIndexFollowsConsulsRules(t *testing.T) {
	for _, c := range []struct {
		name   string
		script []answer
		want   []string
	}{
		{"goes on from the last one", []answer{{index: 5, ids: "A"}, {index: 9, ids: "A"}}, []string{"", "5", "9"}},
		{
			"starts over when it went backwards",
			[]answer{{index: 9, ids: "A"}, {index: 3, ids: "A"}, {index: 3, ids: "A"}},
			[]string{"", "9", "", "3"},
		},
		{"never 0, which would not block", []answer{{index: 0, ids: "A"}}, []string{"", "1"}},
		{
			"starts over after an error",
			[]answer{{index: 9, ids: "A"}, {status: 500}, {index: 9, ids: "A"}},
			[]string{"", "9", "", "9"},
		},
		{
			"an answer without index is an error",
			[]answer{{index: 9, ids: "A"}, {index: -1}, {index: 9, ids: "A"}},
			[]string{"", "9", "", "9"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newAgent(t, c.script...)
			_, lists := watch(t, a.url, quick)
			next(t, lists)
			eventually(t, "all questions", func() bool { return len(a.questions()) >= len(c.want) })
			if diff := cmp.Diff(c.want, a.questions()[:len(c.want)]); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestARestlessServiceIsAskedAtALimitedRate(t *testing.T) {
	opts := quick
	opts.MinInterval = 50 * time.Millisecond
	a := newAgent(t)
	for i := range 1000 {
		a.say(answer{index: i + 1, ids: "A"})
	}
	start := time.Now()
	watch(t, a.url, opts)
	eventually(t, "five questions", func() bool { return len(a.questions()) >= 5 })
	// The n-th question may not be asked before n-1 intervals went by.
	if n, took := len(a.questions()), time.Since(start); time.Duration(n-1)*opts.MinInterval > took {
		t.Errorf("%d questions in %v", n, took)
	}
}

func TestAge(t *testing.T) {
	a := newAgent(t, answer{status: 500})
	w, lists := watch(t, a.url, quick)
	eventually(t, "a second question", func() bool { return len(a.questions()) >= 2 })
	if _, ok := w.Age(); ok {
		t.Error("an age before any answer")
	}
	a.say(answer{index: 5, ids: "A"})
	next(t, lists)
	if age, ok := w.Age(); !ok || age < 0 || age > 10*time.Second {
		t.Errorf("age %v, %v", age, ok)
	}
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !done() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not seen within 20 s", what)
		}
		time.Sleep(5 * time.Millisecond) // between two looks
	}
}
