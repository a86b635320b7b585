package probe

import (
	"slices"
	"sync"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/discovery"
)

// server is a chat server that can be connected to.
type server struct {
	instance, release, address string
	tlsName                    string // in the certificate; empty: no TLS
}

// String is its name in a verdict: as Nomad shortens an allocation's id.
func (s server) String() string {
	name := s.instance[:min(8, len(s.instance))]
	if s.release != "" {
		name += " (release " + s.release + ")"
	}
	return name
}

func (s server) endpoint() *chatv1.Endpoint {
	return &chatv1.Endpoint{Instance: s.instance, Address: s.address, TlsServerName: s.tlsName}
}

// catalog is the chat servers in Consul. Its mutex owns the fields below it; its
// methods may be called from any goroutine.
type catalog struct {
	home string // the instance that the probe belongs to

	mu      sync.Mutex
	loaded  bool
	list    []discovery.Instance
	initial map[string]bool      // the releases that were there first
	seen    map[string]time.Time // when a release was last there
}

// set replaces the list; the first call has the releases that were there first.
func (c *catalog) set(list []discovery.Instance) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.loaded {
		c.loaded, c.initial, c.seen = true, map[string]bool{}, map[string]time.Time{}
		for _, i := range list {
			c.initial[i.Meta[discovery.MetaRelease]] = true
		}
	}
	c.note()
	c.list = list
	c.note()
}

// note remembers which releases are there now. The mutex is held.
func (c *catalog) note() {
	for _, i := range c.list {
		c.seen[i.Meta[discovery.MetaRelease]] = time.Now()
	}
}

// others are the passing chat servers except the probe's own; false before
// Consul has answered once.
func (c *catalog) others() (out []server, loaded bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, i := range c.list {
		if i.Passing && i.ID != c.home {
			out = append(out, server{
				instance: i.ID, release: i.Meta[discovery.MetaRelease], address: i.Address,
				tlsName: i.Meta[discovery.MetaTLSServerName],
			})
		}
	}
	return out, c.loaded
}

// suspectFor is how long after its servers are gone a release can still be the
// cause of a fault: a verdict takes some heartbeats.
const suspectFor = 2 * time.Minute

// newer names a release that was deployed after this probe, if one is there or
// was a moment ago.
func (c *catalog) newer(own string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.note()
	var names []string
	for release, at := range c.seen {
		if release != own && !c.initial[release] && time.Since(at) < suspectFor {
			names = append(names, release)
		}
	}
	slices.Sort(names)
	if len(names) == 0 {
		return ""
	}
	return names[len(names)-1]
}
