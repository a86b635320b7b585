package probe

import (
	"slices"
	"sync"
	"time"

	"github.com/msrchat/msrchat/shared/discovery"
)

// server is a chat server that can be connected to.
type server struct {
	instance, release, address string
}

// String is how a verdict names it: as Nomad shortens an allocation's id.
func (s server) String() string {
	name := s.instance[:min(8, len(s.instance))]
	if s.release != "" {
		name += " (release " + s.release + ")"
	}
	return name
}

// fleet is the chat servers as Consul knows them. Its mutex owns the fields
// below it; its methods may be called from any goroutine.
type fleet struct {
	home string // the instance that the probe belongs to

	mu      sync.Mutex
	known   bool
	list    []discovery.Instance
	initial map[string]bool      // the releases that were there first
	seen    map[string]time.Time // when another release was last there
}

func (f *fleet) set(list []discovery.Instance) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.known {
		f.known, f.initial, f.seen = true, map[string]bool{}, map[string]time.Time{}
		for _, i := range list {
			f.initial[i.Meta[discovery.MetaRelease]] = true
		}
	}
	f.note()
	f.list = list
	f.note()
}

// note remembers which releases are there now. The mutex is held.
func (f *fleet) note() {
	for _, i := range f.list {
		f.seen[i.Meta[discovery.MetaRelease]] = time.Now()
	}
}

// others are the passing chat servers but for the own one; false before Consul
// has answered once.
func (f *fleet) others() (out []server, known bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, i := range f.list {
		if i.Passing && i.ID != f.home {
			out = append(out, server{instance: i.ID, release: i.Meta[discovery.MetaRelease], address: i.Address})
		}
	}
	return out, f.known
}

// lingers is for how long what servers of a release did may still be found out
// after they are gone: a verdict takes some heartbeats.
const lingers = 2 * time.Minute

// newcomer names a release that came after this probe did, if one is there or
// was a moment ago.
func (f *fleet) newcomer(own string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note()
	var names []string
	for release, at := range f.seen {
		if release != own && !f.initial[release] && time.Since(at) < lingers {
			names = append(names, release)
		}
	}
	slices.Sort(names)
	if len(names) == 0 {
		return ""
	}
	return names[len(names)-1]
}
