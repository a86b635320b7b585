package fleet

import "time"

const (
	// shareLeast is how many arrivals make a share.
	shareLeast = 10
	// maxReplicas bounds the estimate.
	maxReplicas = 32
)

// places are the places kept for assignments that have not arrived yet. It
// belongs to the table's mutex.
type places struct {
	byID  map[string]*server
	queue []place // in order of expiry, entries of arrived ones included

	// Arrivals of this replica's assignments and of all, and what it handed out.
	own, all, handed recent
}

type place struct {
	id      string
	expires time.Time
}

func newPlaces() places { return places{byID: map[string]*server{}} }

// keep adds a place at s.
func (p *places) keep(id string, s *server, now, expires time.Time) {
	p.handed.add(1, now)
	p.byID[id] = s
	p.queue = append(p.queue, place{id: id, expires: expires})
	s.pending++
}

// full: no more may be kept. The queue counts, since it is what grows.
func (p *places) full() bool { return len(p.queue) >= maxPending }

// arrived takes in which assignments were used, wherever they led to. Ids that
// are not known here are other replicas'.
func (p *places) arrived(ids []string, now time.Time) {
	if len(ids) == 0 {
		return
	}
	own := 0
	for _, id := range ids {
		if p.release(id) {
			own++
		}
	}
	p.all.add(len(ids), now)
	p.own.add(own, now)
}

// replicas estimates for how many replicas this one stands: all assignments for
// each of its own. What the others hand out is seen only a report later, so
// each counts its own ones that many times. Without that, all of them would
// fill the same gap at once, find it overfilled, and so on for ever.
func (p *places) replicas() float64 {
	// Both were added to at the same time, so they have faded alike since.
	if p.own.n < 1 || p.all.n < shareLeast {
		return 1
	}
	return min(p.all.n/p.own.n, maxReplicas)
}

// release gives a place free and tells whether there was one.
func (p *places) release(id string) bool {
	s := p.byID[id]
	if s == nil {
		return false
	}
	s.pending--
	delete(p.byID, id)
	return true
}

// releaseAll gives every place at s free.
func (p *places) releaseAll(s *server) {
	if s.pending == 0 {
		return
	}
	for id, at := range p.byID {
		if at == s {
			p.release(id)
		}
	}
}

// expire releases what is over.
func (p *places) expire(now time.Time) {
	n := 0
	for n < len(p.queue) && !p.queue[n].expires.After(now) {
		p.release(p.queue[n].id)
		n++
	}
	clear(p.queue[:n]) // or the array would hold on to the ids
	p.queue = p.queue[n:]
	if len(p.queue) == 0 {
		p.queue = nil
	}
}
