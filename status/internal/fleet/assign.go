package fleet

import (
	"cmp"
	"crypto/rand"
	"slices"
	"time"

	"github.com/msrchat/msrchat/shared/errs"
)

const (
	// sampleAbove is the fleet size above which the better of two random servers
	// is taken instead of the best: otherwise replicas with equally old reports
	// would all send everybody to the same server.
	sampleAbove = 32
	// maxAlternates is how many more servers an assignment names.
	maxAlternates = 3

	// fullRetry: there is room again when users leave or pending assignments
	// expire.
	fullRetry = 2 * time.Second
	// noneRetry: a restarted server is back after about that time.
	noneRetry = time.Second
)

// Endpoint is a server's address for clients.
type Endpoint struct {
	Instance, Address, TLSServerName string
}

// Request asks for an assignment.
type Request struct {
	Avoid []string // instances to use only when nothing else is left
	Zone  string   // preferred; empty: no preference
}

// Assignment is a server for a user, who is expected there until Expires.
type Assignment struct {
	ID         string
	Server     Endpoint
	Expires    time.Time
	Alternates []Endpoint // best first, without Server
	// CatalogOnly: decided without reports, and so without the load.
	CatalogOnly bool
}

// candidate is an eligible server and what it is compared by.
type candidate struct {
	server    *server
	unproven  bool      // by its probe
	release   time.Time // newer first
	otherZone bool      // in another zone
	load      float64   // part of its capacity; without reports the pending assignments
	tie       int       // random
}

// tier compares what takes precedence over load. A server whose probe does not
// pass is taken when there is no other: without the database no probe passes, and
// that must not empty the fleet.
func tier(a, b candidate) int {
	return cmp.Or(compareBool(a.unproven, b.unproven), b.release.Compare(a.release),
		compareBool(a.otherZone, b.otherZone))
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

func better(a, b candidate) int {
	return cmp.Or(tier(a, b), cmp.Compare(a.load, b.load), cmp.Compare(a.tie, b.tie))
}

// Assign picks a server for a user and counts the assignment there as pending.
// CodeExhausted: all are full; CodeUnavailable: there is none, or the catalog is
// not known yet.
func (t *Table) Assign(r Request) (Assignment, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	t.pending.expire(now)
	if t.firstSet.IsZero() {
		return Assignment{}, errs.New(errs.CodeUnavailable, "the catalog of chat servers is not known yet").
			Retry(noneRetry)
	}
	if t.pending.full() {
		return Assignment{}, errs.New(errs.CodeExhausted, "too many assignments wait for their users").Retry(fullRetry)
	}
	catalogOnly := t.catalogOnly(now)
	list, full := t.candidates(r, moment{now, catalogOnly})
	if len(list) == 0 {
		return Assignment{}, none(full)
	}
	for i := range list {
		list[i].tie = t.intN(1 << 30)
	}
	best := t.pick(list)
	a := Assignment{
		ID: rand.Text(), Server: best.server.endpoint(), Expires: now.Add(pendingFor),
		Alternates: alternates(list, best.server), CatalogOnly: catalogOnly,
	}
	t.pending.add(a.ID, best.server, now, a.Expires)
	return a, nil
}

// none is the error when no server can be assigned.
func none(full bool) *errs.Error {
	if full {
		return errs.New(errs.CodeExhausted, "every chat server is full").Retry(fullRetry)
	}
	return errs.New(errs.CodeUnavailable, "no chat server is available").Retry(noneRetry)
}

// candidates returns the eligible servers by instance (those to avoid only if
// there is no other), and whether a server is only missing because it is full.
func (t *Table) candidates(r Request, at moment) (list []candidate, full bool) {
	var avoided []candidate
	replicas := t.pending.replicas()
	for _, s := range t.servers {
		switch s.judge(at) {
		case StateFull:
			full = true
		case StateEligible:
			c := candidate{
				server: s, unproven: t.unproven[s.id], otherZone: r.Zone != "" && s.zone() != r.Zone,
				load: float64(s.pending) * replicas,
			}
			if !at.catalogOnly {
				// The capacity is not 0, or the server would be full. Shedding
				// too aims at equal parts of the capacity: else one would undo
				// the other.
				c.load = (c.load + float64(s.report.Load.Connections)) / float64(s.report.Load.Capacity)
				c.release = t.releases[s.release()]
			}
			if slices.Contains(r.Avoid, s.id) {
				avoided = append(avoided, c)
			} else {
				list = append(list, c)
			}
		}
	}
	if len(list) == 0 {
		list = avoided
	}
	return list, full
}

// pick returns the server of the best tier with the least load, or in a big tier
// the better one of two. It moves the best ones of list to its front.
func (t *Table) pick(list []candidate) candidate {
	for i := range min(len(list), 1+maxAlternates) {
		for j := i + 1; j < len(list); j++ {
			if better(list[j], list[i]) < 0 {
				list[i], list[j] = list[j], list[i]
			}
		}
	}
	n := 0
	for _, c := range list {
		if tier(c, list[0]) == 0 {
			n++
		}
	}
	if n <= sampleAbove {
		return list[0]
	}
	a, b := inTier(list, t.intN(n)), inTier(list, t.intN(n))
	if better(b, a) < 0 {
		return b
	}
	return a
}

// inTier returns the k-th candidate of the first one's tier.
func inTier(list []candidate, k int) candidate {
	for _, c := range list {
		if tier(c, list[0]) != 0 {
			continue
		}
		if k == 0 {
			return c
		}
		k--
	}
	return list[0]
}

// alternates returns the next best servers of a list that pick has sorted.
func alternates(list []candidate, without *server) []Endpoint {
	var next []Endpoint
	for _, c := range list[:min(len(list), 1+maxAlternates)] {
		if c.server != without && len(next) < maxAlternates {
			next = append(next, c.server.endpoint())
		}
	}
	return next
}
