package fleet

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/msrchat/msrchat/shared/errs"
)

// Verdict is what a rule says about a server.
type Verdict int

// The verdicts.
const (
	Holds   Verdict = iota // the condition holds
	Fails                  // it does not: the server gets no users
	Orders                 // not a condition: it decides the order
	Skipped                // it does not count at present
)

// Rule is one rule applied to one server.
type Rule struct {
	Name    string
	Verdict Verdict
	Facts   string // what it decided from
}

// Candidate is a server from the point of view of an assignment.
type Candidate struct {
	Server Endpoint
	Rank   int // 1 is taken first, 0 not at all
	Why    string
	Rules  []Rule
}

// Explanation says how a request would be answered.
type Explanation struct {
	Verdict     string
	CatalogOnly bool
	Candidates  []Candidate // in the order in which they would be taken, then the others
}

// Explain says how Assign would answer r now, by the same rules. It assigns
// nothing.
func (t *Table) Explain(r Request) Explanation {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.explain(r, t.now())
}

// ExplainServer is about one server, by its instance or a unique prefix of it:
// whether it would get a user without preferences, and whether it has to shed.
// CodeNotFound: there is none; CodeInvalid: there are several.
func (t *Table) ExplainServer(instance string) (Explanation, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	t.tidy(now)
	t.rebalance(now)
	s, err := t.lookUp(instance)
	if err != nil {
		return Explanation{}, err
	}
	e := t.explain(Request{}, now)
	e.Candidates = slices.DeleteFunc(e.Candidates, func(c Candidate) bool { return c.Server.Instance != s.id })
	c := e.Candidates[0]
	e.Verdict = fmt.Sprintf("%s gets users; its rank is %d: %s", s.id, c.Rank, c.Why)
	if c.Rank == 0 {
		e.Verdict = s.id + " gets no users: " + c.Why
	}
	e.Verdict += "; " + t.shedding(s, now)
	return e, nil
}

// lookUp finds a server by its instance or a prefix of it.
func (t *Table) lookUp(instance string) (*server, error) {
	if s := t.server(instance); s != nil {
		return s, nil
	}
	at, _ := t.find(instance)
	var fit []*server
	for _, s := range t.servers[at:] {
		if instance == "" || !strings.HasPrefix(s.id, instance) {
			break
		}
		fit = append(fit, s)
	}
	switch len(fit) {
	case 0:
		return nil, errs.New(errs.CodeNotFound, "this replica has no chat server %q", instance)
	case 1:
		return fit[0], nil
	}
	return nil, errs.New(errs.CodeInvalid, "%d chat servers begin with %q: %s and %s, for example",
		len(fit), instance, fit[0].id, fit[1].id).In("instance")
}

// shedding says whether a server has to shed connections.
func (t *Table) shedding(s *server, now time.Time) string {
	keep := s.keepAtMost(now)
	switch {
	case keep > 0:
		return fmt.Sprintf("it has to keep at most %d connections now, and its share of %.1f in the end", keep, s.fair)
	case s.fair > 0:
		return fmt.Sprintf("it has no order to shed, its share is %.1f connections", s.fair)
	}
	return "it has no order to shed: " + t.balance.Text
}

func (t *Table) explain(r Request, now time.Time) Explanation {
	t.pending.expire(now)
	at := moment{now, t.catalogOnly(now)}
	list, full := t.candidates(r, at)
	slices.SortStableFunc(list, better) // no random tie: equal ones by instance
	e := Explanation{CatalogOnly: at.catalogOnly, Verdict: verdict(list)}
	for i, c := range list {
		e.Candidates = append(e.Candidates, Candidate{
			Server: c.server.endpoint(), Rank: i + 1, Why: whyRank(list, i), Rules: c.server.rules(r, at, &list[i]),
		})
	}
	for _, s := range t.servers {
		if slices.ContainsFunc(list, func(c candidate) bool { return c.server == s }) {
			continue
		}
		why := s.reason(s.judge(at), now)
		if why == "" {
			why = "the request avoids it, and there are others"
		}
		e.Candidates = append(e.Candidates, Candidate{Server: s.endpoint(), Why: why, Rules: s.rules(r, at, nil)})
	}
	switch {
	case t.firstSet.IsZero():
		e.Verdict = "nobody is assigned: Consul has not answered this replica yet"
	case t.pending.full():
		e.Verdict = "nobody is assigned: too many assignments wait for their users"
	case len(list) == 0:
		e.Verdict = "nobody is assigned: " + none(full).Message
	}
	return e
}

// verdict says which server of a sorted list would be taken.
func verdict(list []candidate) string {
	if len(list) == 0 {
		return ""
	}
	equal, alike := 0, 0
	for _, c := range list {
		if tier(c, list[0]) != 0 {
			break
		}
		if alike++; c.load == list[0].load {
			equal++
		}
	}
	switch {
	case alike > sampleAbove:
		return fmt.Sprintf("the less loaded of two random ones of the first %d would be taken", alike)
	case equal > 1:
		return fmt.Sprintf("one of the first %d, which are equal, would be taken at random", equal)
	}
	return list[0].server.id + " would be taken"
}

// whyRank says why the i-th of a sorted list has its rank.
func whyRank(list []candidate, i int) string {
	c := list[i]
	switch {
	case len(list) == 1:
		return "it is the only one"
	case i == 0:
		return "no other one is better"
	}
	before := list[i-1]
	switch {
	case !c.release.Equal(before.release):
		return "its release is older than that of " + before.server.id
	case c.otherZone != before.otherZone:
		return "it is not in the requested zone"
	case c.load > before.load:
		return "it has more load than " + before.server.id
	}
	return "it is equal to " + before.server.id
}

// rules applies every rule; c is nil for a server that is not taken.
func (s *server) rules(r Request, at moment, c *candidate) []Rule {
	var out []Rule
	for i := range rules {
		rule := Rule{Name: rules[i].name}
		if rules[i].holds(s, at) {
			rule.Facts = rules[i].facts(s, at)
			if at.catalogOnly && (rules[i].breaks == StateSilent || rules[i].breaks == StateStale) {
				rule.Verdict = Skipped
			}
		} else {
			rule.Verdict, rule.Facts = Fails, s.reason(rules[i].breaks, at.now)
		}
		out = append(out, rule)
	}
	avoid := Rule{"not avoided", Holds, "the request does not name it"}
	if slices.Contains(r.Avoid, s.id) {
		avoid = Rule{"not avoided", Fails, "the request names it, and there are others"}
		if c != nil {
			avoid = Rule{"not avoided", Skipped, "the request names it, but there is no other"}
		}
	}
	return append(out, avoid, s.releaseRule(at), s.zoneRule(r), s.loadRule(at, c))
}

func (s *server) releaseRule(at moment) Rule {
	rule := Rule{"newest release", Orders, s.release()}
	if at.catalogOnly {
		rule = Rule{"newest release", Skipped, s.release() + "; only reports say which one is newer"}
	}
	return rule
}

func (s *server) zoneRule(r Request) Rule {
	switch {
	case r.Zone == "":
		return Rule{"zone", Skipped, "none is requested"}
	case s.zone() == r.Zone:
		return Rule{"zone", Orders, r.Zone + ", as requested"}
	}
	return Rule{"zone", Orders, fmt.Sprintf("%q, requested is %q", s.zone(), r.Zone)}
}

func (s *server) loadRule(at moment, c *candidate) Rule {
	switch {
	case c == nil:
		return Rule{"least load", Skipped, "it is not taken"}
	case at.catalogOnly:
		return Rule{
			"least load", Orders, fmt.Sprintf("%d pending assignments; reports do not count at present", s.pending),
		}
	}
	return Rule{"least load", Orders, fmt.Sprintf("%.2f %% of its capacity: %d connections, %d pending assignments, "+
		"and an estimate of those of other replicas", 100*c.load, s.report.Load.Connections, s.pending)}
}
