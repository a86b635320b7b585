package e2e_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/msrchat/msrchat/chat"
	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/probe"
	"github.com/msrchat/msrchat/proof/account"
	"github.com/msrchat/msrchat/proof/check"
	"github.com/msrchat/msrchat/proof/device"
	"github.com/msrchat/msrchat/proof/journal"
	"github.com/msrchat/msrchat/shared/certificate/certtest"
	"github.com/msrchat/msrchat/shared/testenv"

	"github.com/msrchat/msrchat/e2e/fleet"
)

// rolledBackCode is what `just upgrade` ends with when Nomad went back.
const rolledBackCode = 3

// TestUpgrades is the long form: rolling upgrades of chat in a row, over four
// servers and under load, then a build that loses messages. docs/upgrades.md has
// the command and a table.
func TestUpgrades(t *testing.T) {
	times, err := strconv.Atoi(os.Getenv("MSRCHAT_UPGRADES"))
	if err != nil || times < 1 {
		t.Skip("not run: MSRCHAT_UPGRADES does not say how many upgrades; TestFleet makes one")
	}
	f := fleet.Up(t)
	four := []string{"upgrade", "chat", "--set", "count=4"}
	var trust *tls.Config
	if os.Getenv("MSRCHAT_UPGRADE_TLS") != "" {
		ca := certtest.New(t)
		files := ca.Files("chat.example.org")
		trust = &tls.Config{RootCAs: ca.Roots, MinVersion: tls.VersionTLS13}
		four = append(four, "--set", "tls_server_name=chat.example.org", "--set", "tls_cert="+files.Cert,
			"--set", "tls_key="+files.Key, "--set", "tls_ca="+ca.File)
	}
	f.Just(four...)
	testenv.Until(t, "four chat servers", func() bool { return len(f.Passing("chat")) == 4 })
	p := plan{
		tls:   trust,
		times: times, people: 200, rate: 100,
		proof: os.Getenv("MSRCHAT_UPGRADE_PROOF"), old: os.Getenv("MSRCHAT_UPGRADE_OLD"),
	}
	if rate, err := strconv.ParseFloat(os.Getenv("MSRCHAT_UPGRADE_RATE"), 64); err == nil {
		p.rate = rate
	}
	upgrades(t, f, p)
	rolledBack(t, f)
	for _, service := range []string{"status", "gate"} {
		old := f.Passing(service)
		f.Just("upgrade", service, "--set", "min_healthy_time=2s")
		testenv.Until(t, "a new "+service, func() bool {
			now := f.Passing(service)
			replaced := !slices.ContainsFunc(now, func(i string) bool { return slices.Contains(old, i) })
			return len(now) == len(old) && replaced
		})
	}
}

// plan is a row of upgrades under load.
type plan struct {
	times  int
	people int
	rate   float64 // messages a second of the whole crowd
	proof  string  // messages of a probe's proof; empty: what the job has
	// tls is what people trust where the chat servers speak TLS; else nil.
	tls *tls.Config
	// old is a git ref that every second upgrade goes to; empty: other variables
	// of the same programs, which Nomad rolls out all the same.
	old string
}

// upgraded is what one upgrade did.
type upgraded struct {
	what       string
	began, end time.Time
	moves      []int         // of each device
	asked      []int         // how often each was asked to leave a server that was replaced
	gap        time.Duration // the longest from typed to shown
}

// upgrades rolls chat over again and again while a crowd talks. The journals and
// the log prove that nothing was lost, doubled or refused; nobody was asked to
// move twice in an upgrade.
func upgrades(t *testing.T, f *fleet.Fleet, p plan) {
	t.Helper()
	db := testenv.Open(t, f.Database())
	people, conversations, err := account.MakePairs(t.Context(), db, account.Order{Run: "upgrades", Count: p.people})
	if err != nil {
		t.Fatal(err)
	}
	crowd, err := device.NewCrowd(t.Context(), device.CrowdOptions{
		Gate: f.Gate(), People: people, Conversations: conversations, Seed: 1,
		Change: func(o *client.Options) { o.TLS = p.tls },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer crowd.Close()
	talking, stop := context.WithCancel(t.Context())
	var talk errgroup.Group
	talk.Go(func() error { return crowd.Talk(talking, p.rate) })
	defer stop()

	var done []upgraded
	for i := range p.times {
		args := []string{"upgrade", "chat", ".", "--set", fmt.Sprintf("drain_rate=%d", 1000+i), "--set", "probe=true"}
		if p.proof != "" {
			args = append(args, "--set", "probe_messages="+p.proof)
		}
		if p.old != "" && i%2 == 0 {
			args = []string{"upgrade", "chat", p.old}
		}
		u := upgraded{what: strings.Join(args, " "), began: time.Now()}
		old := f.Passing("chat")
		out := f.Just(args...)
		if now := f.Passing("chat"); slices.ContainsFunc(now, func(i string) bool { return slices.Contains(old, i) }) {
			t.Errorf("old servers are left after the upgrade: %v, before %v\n%s", now, old, out)
		}
		u.end = time.Now()
		// Who was asked to leave last is back before the next upgrade counts moves.
		testenv.Until(t, "every device is online", func() bool {
			return !slices.ContainsFunc(crowd.Devices(), func(d *device.Device) bool { return !d.Online() })
		})
		done = append(done, u)
	}
	typed := crowd.Counts().Typed
	testenv.Until(t, "talk after the last upgrade", func() bool { return crowd.Counts().Typed >= typed+int64(p.rate) })
	stop()
	if err := talk.Wait(); err != nil {
		t.Fatal(err)
	}
	quiet, err := crowd.Quiet(t.Context(), chat.DefaultHeartbeat)
	if err != nil {
		t.Error(err)
	}
	run, err := check.Read(t.Context(), db, crowd.Journals())
	if err != nil {
		t.Fatal(err)
	}
	run.Quiet, run.Heartbeat, run.Minimum = quiet, chat.DefaultHeartbeat, int(typed/2)
	report := run.Check()
	if err := report.Err(); err != nil {
		t.Error(err)
	}
	refused := measure(crowd.Journals(), done)
	if refused > 0 {
		t.Errorf("%d sends failed visibly", refused)
	}
	// Who leaves a server by itself, because it was silent for too long on a busy
	// machine, may come to another old one; the table shows it.
	for i, u := range done {
		for d, asked := range u.asked {
			if asked > 1 {
				t.Errorf("upgrade %d asked %s %d times to leave", i+1, crowd.Devices()[d].Name, asked)
			}
		}
		if slices.Max(u.moves) == 0 {
			t.Errorf("upgrade %d moved nobody", i+1)
		}
	}
	if t.Failed() {
		keepRun(t, run)
	}
	t.Logf("%+v, %d refused\n%s\n%s", crowd.Counts(), refused, table(done), report)
	crowd.Close()
	if _, err := account.Remove(t.Context(), db, "upgrades"); err != nil {
		t.Error(err)
	}
}

// measure reads from the journals what each upgrade did, and how many messages
// were refused for good.
func measure(journals []*journal.Journal, done []upgraded) (refused int) {
	during := func(at time.Time) *upgraded {
		for i := range done {
			if at.After(done[i].began) && (i+1 == len(done) || at.Before(done[i+1].began)) {
				return &done[i]
			}
		}
		return nil
	}
	typed := make(map[[16]byte]time.Time)
	for _, j := range journals {
		for e := range j.All() {
			if e.Kind == journal.Typed {
				typed[e.ID] = e.At
			}
		}
	}
	for d, j := range journals {
		for i := range done {
			done[i].moves, done[i].asked = append(done[i].moves, 0), append(done[i].asked, 0)
		}
		server := ""
		for e := range j.All() {
			u := during(e.At)
			switch e.Kind {
			case journal.Refused:
				refused++
			case journal.Online:
				if u != nil && server != "" && server != e.Detail {
					u.moves[d]++
				}
				server = e.Detail
			case journal.Offline:
				if u != nil && strings.Contains(e.Detail, "being replaced") {
					u.asked[d]++
				}
			case journal.Shown:
				if at, known := typed[e.ID]; known && u != nil {
					u.gap = max(u.gap, e.At.Sub(at))
				}
			}
		}
	}
	return refused
}

// table prints the upgrades as documents show them.
func table(done []upgraded) string {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 1, ' ', 0)
	fmt.Fprintln(w, "| upgrade\t| took\t| moves per connection\t| asked to leave\t| longest typed to shown\t|")
	for i, u := range done {
		fmt.Fprintf(w, "| %d\t| %.0f s\t| %d to %d\t| at most %d\t| %.2f s\t|\n",
			i+1, u.end.Sub(u.began).Seconds(), slices.Min(u.moves), slices.Max(u.moves), slices.Max(u.asked),
			u.gap.Seconds())
	}
	_ = w.Flush() // to memory
	return text.String()
}

// noneCondemned asks every probe. They pass again once the faults are over.
func noneCondemned(t *testing.T, f *fleet.Fleet) {
	t.Helper()
	entries, _, err := f.Consul.Health().Service(probe.Service, "", false, nil)
	if err != nil || len(entries) == 0 {
		t.Fatalf("%d probes, %v", len(entries), err)
	}
	for _, e := range entries {
		p := &probing{t: t, address: net.JoinHostPort(e.Service.Address, strconv.Itoa(e.Service.Port))}
		p.passes("after the faults")
		_, text := p.check()
		t.Logf("%.8s: %s", e.Service.Meta["instance"], text)
	}
}

// rolledBack gives the fleet a build that acknowledges every thousandth message
// without storing it. Its servers run and pass every check but the probes'.
func rolledBack(t *testing.T, f *fleet.Fleet) {
	t.Helper()
	before := f.Passing("chat")
	began := time.Now()
	out, code := f.Run("upgrade", "chat", f.Planted("drop-thousandth"), "--set", "probe_messages=10000")
	if code != rolledBackCode {
		t.Errorf("the upgrade ended with %d, want %d:\n%s", code, rolledBackCode, out)
	}
	for _, want := range []string{"rolled back to release", probe.Broken, "acknowledged as number"} {
		if !strings.Contains(out, want) {
			t.Errorf("the output does not say %q:\n%s", want, out)
		}
	}
	slices.Sort(before)
	testenv.Until(t, "the servers from before pass, and no others", func() bool {
		now := f.Passing("chat")
		slices.Sort(now)
		return slices.Equal(now, before)
	})
	t.Logf("rolled back after %.0f s", time.Since(began).Seconds())
}
