package fleet

import "time"

const (
	// minSample is how many arrivals are enough for an estimate.
	minSample = 10
	// maxReplicas bounds the estimate.
	maxReplicas = 32
)

// pending are the assignments whose users have not arrived yet. It belongs to the
// table's mutex.
type pending struct {
	byID  map[string]*server
	queue []expiry // in order of expiry, those of arrived users included

	// Arrivals of this replica's assignments and of all, and this one's
	// assignments.
	own, all, assigned recent
}

type expiry struct {
	id string
	at time.Time
}

func newPending() pending { return pending{byID: map[string]*server{}} }

// add counts an assignment to s.
func (p *pending) add(id string, s *server, now, expires time.Time) {
	p.assigned.add(1, now)
	p.byID[id] = s
	p.queue = append(p.queue, expiry{id: id, at: expires})
	s.pending++
}

// full: no more may be added. The queue counts, because it is what grows.
func (p *pending) full() bool { return len(p.queue) >= maxPending }

// arrived takes in the assignments that were used, on any server. Unknown ids are
// those of other replicas.
func (p *pending) arrived(ids []string, now time.Time) {
	if len(ids) == 0 {
		return
	}
	own := 0
	for _, id := range ids {
		if p.remove(id) {
			own++
		}
	}
	p.all.add(len(ids), now)
	p.own.add(own, now)
}

// replicas estimates how many replicas assign: all arrivals for each of this
// replica's own. What the others assigned is in the reports only a second later,
// so each replica counts its own pending assignments that many times. Otherwise
// all of them would fill the same gap at once, overfill it, and oscillate.
func (p *pending) replicas() float64 {
	// Both are updated at the same time, so they have decayed alike.
	if p.own.n < 1 || p.all.n < minSample {
		return 1
	}
	return min(p.all.n/p.own.n, maxReplicas)
}

// remove ends an assignment and says whether it was pending.
func (p *pending) remove(id string) bool {
	s := p.byID[id]
	if s == nil {
		return false
	}
	s.pending--
	delete(p.byID, id)
	return true
}

// removeAll ends every assignment to s.
func (p *pending) removeAll(s *server) {
	if s.pending == 0 {
		return
	}
	for id, at := range p.byID {
		if at == s {
			p.remove(id)
		}
	}
}

// expire removes those whose time is over.
func (p *pending) expire(now time.Time) {
	n := 0
	for n < len(p.queue) && !p.queue[n].at.After(now) {
		p.remove(p.queue[n].id)
		n++
	}
	clear(p.queue[:n]) // so that the array does not keep the ids
	p.queue = p.queue[n:]
	if len(p.queue) == 0 {
		p.queue = nil
	}
}
