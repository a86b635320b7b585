package fleet

import (
	"fmt"
	"math"
	"time"
)

// Balancing. Users stay connected for days, so a server that was added would
// wait for days for its share. Instead the others get an order to keep at most
// a number of connections; a user who has to leave gets a new assignment, which
// leads to a server with more room.
//
// There is no leader. Each replica draws its own conclusion from the same
// reports, and an order names what may stay, not what should go: the orders of
// several replicas do not add up, the lowest one counts. A replica that does
// not see the whole fleet gives no order.

// DefaultStableFor is for how long the fleet has to be unchanged before
// connections are moved: users who lost their server are back by then (clients
// wait seconds), and a new release has begun to come up beside the old one.
const DefaultStableFor = 10 * time.Second

const (
	// catalogGood is how old the catalog may be. Consul answers every ten
	// seconds when nothing changes.
	catalogGood = 15 * time.Second
	// unevenFor is for how long the load has to be uneven: logins and logouts
	// come in bursts.
	unevenFor = 3 * time.Second
	// moveWithin is the time in which a server sheds its surplus. Together with
	// DefaultStableFor it is well within the minute in which a new server should
	// have its share.
	moveWithin = 30 * time.Second
	// maxMoves bounds how many connections of a zone are moved per second: half
	// of what gate and database bear when a server dies (10,000 in ten seconds).
	maxMoves = 500
	// inMotion is how long a connection may take from one server to the other.
	// For that long the highest total counts: a user between two servers is in no
	// report, and every share would seem to shrink.
	inMotion = 5 * time.Second
	// moveLimit is how much longer than planned an attempt may take. The users
	// may come back (because the other servers refuse them, say); then nothing
	// is tried for giveUpFor.
	moveLimit = time.Minute
	giveUpFor = 5 * time.Minute
	// balanceEvery is how often the balance is computed.
	balanceEvery = 200 * time.Millisecond
)

// BalanceState is what a replica does about the load.
type BalanceState int

// The states.
const (
	BalanceEven   BalanceState = iota // within the tolerance
	BalanceMoving                     // servers have orders to shed
	BalanceHeld                       // nothing is moved, even if the load is uneven
)

// Balance is how even the load is.
type Balance struct {
	State  BalanceState
	Text   string
	ToMove int // connections above the fair share of their servers, while moving
}

// balance is the state of the whole fleet, balanced that of a server, zone that
// of a zone. All belong to the table's mutex.
type balance struct {
	Balance
	computed time.Time
	changed  time.Time // when the fleet last changed
	zones    map[string]*zone
}

type balanced struct {
	takesPart bool
	boot      uint64 // of the process in the last computation
	fair      float64
	ramp      *ramp // nil without an order
}

// zone is balanced by itself: assignments stay within their zone.
type zone struct {
	members []*server
	highest float64 // total of connections, and when it was
	highAt  time.Time
	even    time.Time // when it was last within the tolerance
	moving  bool
	until   time.Time // the end of the attempt, or of the pause after it
}

// ramp is a falling limit: how many connections a server may keep, from those at
// the start down to its fair share.
type ramp struct {
	from, floor uint32
	since       time.Time
	rate        float64 // connections per second
}

// keepAtMost is the server's current order; 0 is none.
func (s *server) keepAtMost(now time.Time) uint32 {
	if s.ramp == nil {
		return 0
	}
	gone := s.ramp.rate * now.Sub(s.ramp.since).Seconds()
	return max(uint32(max(float64(s.ramp.from)-gone, 1)), s.ramp.floor)
}

// tolerance is how far from its fair share a server may be: a twentieth, and the
// noise of a random distribution (its standard deviation, and two for the
// smallest).
func tolerance(fair float64) float64 { return fair/20 + math.Sqrt(fair) + 2 }

// rebalance computes the balance of the whole fleet, if it is time.
func (t *Table) rebalance(now time.Time) {
	b := &t.balance
	if now.Sub(b.computed) < balanceEvery {
		return
	}
	b.computed = now
	if why := t.held(now); why != "" {
		b.Balance = Balance{State: BalanceHeld, Text: why}
		clear(b.zones)
		for _, s := range t.servers {
			s.fair, s.ramp = 0, nil
		}
		return
	}
	b.Balance = Balance{State: BalanceEven, Text: "the load is even"}
	for name, z := range t.byZone(now) {
		if len(z.members) == 0 {
			delete(b.zones, name)
			continue
		}
		t.share(z, now)
		switch {
		case z.moving:
			b.State = BalanceMoving
			for _, s := range z.members {
				if s.ramp != nil {
					b.ToMove += int(s.report.Load.Connections - s.ramp.floor)
				}
			}
		case now.Before(z.until) && b.State == BalanceEven:
			b.Balance = Balance{
				State: BalanceHeld,
				Text: "moving connections did not even the load; next attempt in " +
					z.until.Sub(now).Round(time.Second).String(),
			}
		}
	}
	if b.State == BalanceMoving {
		b.Text = fmt.Sprintf("%d connections have to move to servers with more room", b.ToMove)
	}
}

// held says why no connection may be moved, or "". It records changes of the
// fleet.
func (t *Table) held(now time.Time) string {
	b := &t.balance
	at := moment{now, t.catalogOnly(now)}
	why, releases := "", map[string]bool{}
	for _, s := range t.servers {
		state := s.judge(at)
		takesPart := s.fresh(now) && (state == StateEligible || state == StateFull)
		if takesPart != s.takesPart || s.report != nil && s.report.BootID != s.boot {
			b.changed = now
		}
		s.takesPart = takesPart
		if s.report != nil {
			s.boot = s.report.BootID
		}
		if s.listed {
			releases[s.release()] = true
		}
		switch {
		case s.fresh(now) && (state == StateDraining || state == StateLeft):
			why = s.id + " is draining"
		case s.listed && t.unproven[s.id]:
			why = "the probe of " + s.id + " does not pass" // the server is new, or broken
		case state == StateSilent || state == StateStale || at.catalogOnly && state == StateEligible && !s.fresh(now):
			why = s.id + " does not report" // it may hold connections
		}
	}
	if len(releases) > 1 {
		why = fmt.Sprintf("%d releases are live", len(releases))
	}
	if age, known := t.catalogAge(); !known || age > catalogGood {
		why = "Consul does not answer"
	}
	if t.firstSet.IsZero() || why != "" {
		b.changed = now
	}
	if quiet := now.Sub(b.changed); why == "" && quiet < t.stableFor {
		why = "the fleet changed a moment ago"
	}
	return why
}

// byZone sorts the servers that take part into their zones.
func (t *Table) byZone(now time.Time) map[string]*zone {
	zones := t.balance.zones
	for _, z := range zones {
		z.members = z.members[:0]
	}
	for _, s := range t.servers {
		if !s.takesPart || s.report.Load.Capacity == 0 {
			s.fair, s.ramp = 0, nil
			continue
		}
		z := zones[s.zone()]
		if z == nil {
			z = &zone{even: now}
			zones[s.zone()] = z
		}
		z.members = append(z.members, s)
	}
	return zones
}

// share gives each server of a zone its fair share, and orders those that have
// more to shed.
func (t *Table) share(z *zone, now time.Time) {
	total, capacity := 0.0, 0.0
	for _, s := range z.members {
		total += float64(s.report.Load.Connections)
		capacity += float64(s.report.Load.Capacity)
	}
	if total >= z.highest || now.Sub(z.highAt) > inMotion {
		z.highest, z.highAt = total, now
	}
	uneven, above := false, 0.0
	for _, s := range z.members {
		s.fair = z.highest * float64(s.report.Load.Capacity) / capacity
		off := float64(s.report.Load.Connections) - s.fair
		uneven = uneven || math.Abs(off) > tolerance(s.fair)
		above += max(off, 0)
	}
	switch {
	case z.moving:
		z.goOn(now)
	case !uneven:
		z.even = now
	case now.Sub(z.even) >= unevenFor && !now.Before(z.until):
		z.begin(now, above)
	}
}

// begin gives an order to each server with more than its share. All orders end at
// about the same time.
func (z *zone) begin(now time.Time, above float64) {
	for _, s := range z.members {
		have, floor := s.report.Load.Connections, uint32(math.Ceil(s.fair))
		if have <= floor {
			continue
		}
		excess := float64(have - floor)
		s.ramp = &ramp{
			from: have, floor: floor, since: now,
			rate: max(min(excess/moveWithin.Seconds(), maxMoves*excess/above), 1),
		}
		z.moving = true
	}
	if z.moving {
		planned := max(moveWithin.Seconds(), above/maxMoves)
		z.until = now.Add(moveLimit + time.Duration(planned*float64(time.Second)))
	}
}

// goOn ends the orders that are fulfilled, and all of them when it takes too
// long.
func (z *zone) goOn(now time.Time) {
	z.moving = false
	for _, s := range z.members {
		if s.ramp == nil {
			continue
		}
		s.ramp.floor = uint32(math.Ceil(s.fair))
		if s.report.Load.Connections <= s.ramp.floor {
			s.ramp = nil
			continue
		}
		z.moving = true
	}
	if !z.moving {
		z.until = time.Time{}
		return
	}
	if now.After(z.until) {
		z.moving, z.until = false, now.Add(giveUpFor)
		for _, s := range z.members {
			s.ramp = nil
		}
	}
}
