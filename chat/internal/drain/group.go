package drain

import (
	"sync"
	"time"

	"github.com/msrchat/msrchat/shared/discovery"
)

// Group is the other chat servers that left the catalog lately. In an upgrade all
// old servers leave together, and each asks only its share of the fleet's rate of
// connections to leave. The mutex owns the fields below it.
type Group struct {
	own string

	mu     sync.Mutex
	listed map[string]bool
	left   map[string]time.Time
}

func newGroup(own string) *Group {
	return &Group{own: own, listed: map[string]bool{}, left: map[string]time.Time{}}
}

// Update takes the catalog as it is now.
func (g *Group) Update(list []discovery.Instance) { g.set(list, time.Now()) }

func (g *Group) set(list []discovery.Instance, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	listed := make(map[string]bool, len(list))
	for _, i := range list {
		if i.ID != g.own {
			listed[i.ID] = true
			delete(g.left, i.ID)
		}
	}
	for id := range g.listed {
		if !listed[id] {
			g.left[id] = now
		}
	}
	g.listed = listed
}

// since counts the servers that left within the last d, and forgets the others.
func (g *Group) since(d time.Duration, now time.Time) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	for id, at := range g.left {
		if now.Sub(at) > d {
			delete(g.left, id)
		}
	}
	return len(g.left)
}
