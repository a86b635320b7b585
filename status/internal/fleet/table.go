// Package fleet decides which chat server takes a user. It joins what Consul's
// catalog says about the chat servers with what they report themselves. It has no
// process, no connection, and an injected clock.
package fleet

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/msrchat/msrchat/shared/discovery"
	"github.com/msrchat/msrchat/shared/errs"
)

const (
	// freshFor is how old a report may be: servers report every second, so three
	// may be lost before one counts as silent.
	freshFor = 3 * time.Second
	// closedFor replaces freshFor once the report stream broke: the time to
	// open a new one.
	closedFor = time.Second
	// checkGrace is how long a server that passed before and still reports may
	// fail its check. A restarted Consul agent calls every check critical until
	// it ran once, after one check interval of a second.
	checkGrace = 2 * time.Second
	// warmFor is the time after a replica's start in which servers may not have
	// found it yet.
	warmFor = 3 * time.Second
	// forgetAfter drops the last report of a server that is gone.
	forgetAfter = time.Minute

	// pendingFor is how long an assignment waits for its user.
	pendingFor = 10 * time.Second
	// maxPending bounds the pending assignments: 10,000 logins a second.
	maxPending = 100_000
	// maxUnlisted bounds the servers that report but were never in the catalog.
	maxUnlisted = 1000
)

// Load is what a server reports about itself.
type Load struct {
	Connections, Capacity uint32
	SendRate              float64 // sends per second
	QueueDelayMS          float64
	CPU                   float64 // cores in use
	MemoryBytes           uint64
	Draining              bool
}

// Report is one report of one server.
type Report struct {
	Instance      string
	BootID        uint64 // differs for each process of the instance
	Release, Zone string
	Address       string // for clients
	TLSServerName string
	StartedAt     time.Time
	Load          Load
	Used          []string // assignments that arrived since the last report
}

// Order is the answer to a report. It may be repeated with every report, so that
// replicas need not agree on who gives it.
type Order struct {
	// KeepAtMost: shed the connections above it; 0 is no order.
	KeepAtMost uint32
}

// Options of a table. The zero value of each field means its default.
type Options struct {
	// CatalogAge is how long ago Consul answered, false if it never did. Without
	// the function the catalog counts as new.
	CatalogAge func() (time.Duration, bool)
	// StableFor is for how long the fleet has to be unchanged before connections
	// are moved; 0 means DefaultStableFor.
	StableFor time.Duration

	// For tests.
	Now  func() time.Time
	IntN func(n int) int // random in [0, n)
}

// Table is what one replica knows about the fleet. Its mutex owns everything
// below it; no method blocks on anything else. All methods are safe for
// concurrent use.
type Table struct {
	now        func() time.Time
	intN       func(n int) int
	catalogAge func() (time.Duration, bool)
	stableFor  time.Duration
	ready      chan struct{} // closed by the first SetCatalog

	mu       sync.Mutex
	firstSet time.Time // when the catalog was first set; zero before
	servers  []*server // by instance
	// releases is when the first server of each release started. It outlives that
	// server: a restart does not make a release newer.
	releases map[string]time.Time
	pending  pending
	balance  balance
	// unproven are the instances whose probe does not pass.
	unproven map[string]bool
}

// server is all that is known about one instance. It belongs to the table's
// mutex.
type server struct {
	id string

	row          discovery.Instance // its entry in the catalog; the last one if it left
	listed       bool               // in the catalog
	wasListed    bool
	passed       bool      // passed since it came into the catalog
	failingSince time.Time // zero while passing

	report     *Report // nil if there is none, or only one older than forgetAfter
	reportedAt time.Time
	stream     *Stream // nil when closed
	closedAt   time.Time

	pending int // pending assignments

	balanced
}

// New returns an empty table.
func New(opts Options) *Table {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.IntN == nil {
		opts.IntN = rand.IntN
	}
	if opts.CatalogAge == nil {
		opts.CatalogAge = func() (time.Duration, bool) { return 0, true }
	}
	return &Table{
		now: opts.Now, intN: opts.IntN, catalogAge: opts.CatalogAge, ready: make(chan struct{}),
		stableFor: cmp.Or(opts.StableFor, DefaultStableFor),
		releases:  map[string]time.Time{}, pending: newPending(), balance: balance{zones: map[string]*zone{}},
	}
}

// Ready is closed once the catalog is known.
func (t *Table) Ready() <-chan struct{} { return t.ready }

// SetProbes replaces the probes by list, failing ones included. A probe has the
// instance of the server that it belongs to.
func (t *Table) SetProbes(list []discovery.Instance) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.unproven = map[string]bool{}
	for _, probe := range list {
		if !probe.Passing {
			t.unproven[probe.ID] = true
		}
	}
}

// SetCatalog replaces the catalog by list, failing instances included. Of two
// entries with one instance id, the passing one counts.
func (t *Table) SetCatalog(list []discovery.Instance) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	if t.firstSet.IsZero() {
		t.firstSet = now
		close(t.ready)
	}
	rows := make(map[string]discovery.Instance, len(list))
	for _, row := range list {
		if other, twice := rows[row.ID]; !twice || !other.Passing {
			rows[row.ID] = row
		}
	}
	for id, row := range rows {
		s := t.ensure(id)
		if !s.listed {
			s.passed, s.failingSince = false, time.Time{}
		}
		s.row, s.listed, s.wasListed = row, true, true
		switch {
		case row.Passing:
			s.passed, s.failingSince = true, time.Time{}
		case s.failingSince.IsZero():
			s.failingSince = now
		}
	}
	for _, s := range t.servers {
		if _, listed := rows[s.id]; !listed {
			s.listed = false
		}
	}
	t.tidy(now)
	t.rebalance(now)
}

// Stream is a server's open report stream.
type Stream struct {
	table    *Table
	instance string
	bootID   uint64
	replaced chan struct{}
}

// Replaced is closed when a newer stream replaced this one.
func (s *Stream) Replaced() <-chan struct{} { return s.replaced }

// Join takes a stream's first report. It replaces the instance's older stream,
// unless that one belongs to a process that started later: CodeConflict. Too
// many unknown instances are CodeExhausted.
func (t *Table) Join(r Report) (*Stream, Order, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	t.tidy(now)
	s := t.server(r.Instance)
	if s == nil && t.unlisted() >= maxUnlisted {
		return nil, Order{}, errs.New(errs.CodeExhausted,
			"too many servers that are not in the catalog report").Retry(forgetAfter)
	}
	if s != nil && s.stream != nil {
		if s.report != nil && s.stream.bootID != r.BootID && r.StartedAt.Before(s.report.StartedAt) {
			return nil, Order{}, errs.New(errs.CodeConflict,
				"a process that started later reports as the same instance")
		}
		close(s.stream.replaced)
	}
	s = t.ensure(r.Instance)
	s.stream = &Stream{table: t, instance: r.Instance, bootID: r.BootID, replaced: make(chan struct{})}
	return s.stream, t.take(s, r, now), nil
}

// Report takes a further report. CodeConflict: the stream was replaced;
// CodeInvalid: the report is another process's.
func (s *Stream) Report(r Report) (Order, error) {
	t := s.table
	t.mu.Lock()
	defer t.mu.Unlock()
	if r.Instance != s.instance || r.BootID != s.bootID {
		return Order{}, errs.New(errs.CodeInvalid, "a stream reports for one process only").In("boot_id")
	}
	row := t.server(s.instance)
	if row == nil || row.stream != s {
		return Order{}, errs.New(errs.CodeConflict, "a newer stream reports for this instance")
	}
	return t.take(row, r, t.now()), nil
}

// Close ends the stream; its last report counts for another second.
func (s *Stream) Close() {
	t := s.table
	t.mu.Lock()
	defer t.mu.Unlock()
	if row := t.server(s.instance); row != nil && row.stream == s {
		row.stream, row.closedAt = nil, t.now()
	}
}

// take stores a report and returns the order for it.
func (t *Table) take(s *server, r Report, now time.Time) Order {
	used := r.Used
	r.Used = nil // do not keep it with the report
	s.report, s.reportedAt = &r, now
	if first, known := t.releases[s.release()]; !known || r.StartedAt.Before(first) {
		t.releases[s.release()] = r.StartedAt
	}
	t.pending.arrived(used, now)
	t.rebalance(now)
	return Order{KeepAtMost: s.keepAtMost(now)}
}

// server returns an instance, nil if it is unknown.
func (t *Table) server(id string) *server {
	if i, known := t.find(id); known {
		return t.servers[i]
	}
	return nil
}

// ensure returns an instance and adds it if it is unknown.
func (t *Table) ensure(id string) *server {
	i, known := t.find(id)
	if !known {
		t.servers = slices.Insert(t.servers, i, &server{id: id})
	}
	return t.servers[i]
}

func (t *Table) find(id string) (int, bool) {
	return slices.BinarySearchFunc(t.servers, id, func(s *server, id string) int { return cmp.Compare(s.id, id) })
}

func (t *Table) unlisted() int {
	n := 0
	for _, s := range t.servers {
		if !s.wasListed {
			n++
		}
	}
	return n
}

// tidy forgets old reports, servers that are not listed and do not report, and
// releases without a server.
func (t *Table) tidy(now time.Time) {
	live := make(map[string]bool, 2)
	t.servers = slices.DeleteFunc(t.servers, func(s *server) bool {
		if s.report != nil && s.stream == nil && now.Sub(s.reportedAt) > forgetAfter {
			s.report = nil
		}
		if !s.listed && s.report == nil && s.stream == nil {
			t.pending.removeAll(s)
			return true
		}
		live[s.release()] = true
		return false
	})
	for release := range t.releases {
		if !live[release] {
			delete(t.releases, release)
		}
	}
}

// The catalog takes precedence over what a server reports about itself: reports
// are not authenticated.

func (s *server) release() string {
	if v := s.row.Meta[discovery.MetaRelease]; v != "" || s.report == nil {
		return v
	}
	return s.report.Release
}

func (s *server) zone() string {
	if v := s.row.Meta[discovery.MetaZone]; v != "" || s.report == nil {
		return v
	}
	return s.report.Zone
}

func (s *server) endpoint() Endpoint {
	e := Endpoint{Instance: s.id, Address: s.row.Address, TLSServerName: s.row.Meta[discovery.MetaTLSServerName]}
	if s.report != nil {
		if e.Address == "" {
			e.Address = s.report.Address
		}
		if e.TLSServerName == "" {
			e.TLSServerName = s.report.TLSServerName
		}
	}
	return e
}

// passes: its checks pass, or have failed so briefly that its reports count more.
func (s *server) passes(now time.Time) bool {
	return s.row.Passing ||
		s.passed && s.stream != nil && s.fresh(now) && now.Sub(s.failingSince) < checkGrace
}

// fresh: the last report can be relied on.
func (s *server) fresh(now time.Time) bool {
	if s.report == nil || now.Sub(s.reportedAt) > freshFor {
		return false
	}
	return s.stream != nil || now.Sub(s.closedAt) <= closedFor
}
