// Package budget divides the memory that connections may hold among the accounts and
// networks that they are of.
//
// An account may hold at most a quarter of what is free at that moment, and only a
// sixty-fourth while its network holds as much as is free. So a crowd that holds all it
// can always leaves room for others: one account ends at a fifth of the whole, twenty
// leave a sixth of it free, or a third if they are of one network, where other people
// still find room. (Choudhury and Hahne's dynamic thresholds, as switches share their
// buffers.)
package budget

import (
	"net/netip"
	"sync"
	"sync/atomic"
)

// One part of so many of what is free is the most that an account may hold, and in a
// network that holds as much as is free.
const (
	accountPart = 4
	crowdedPart = 64
)

// Budget is the memory. Its methods may be called from any goroutine; none blocks.
type Budget struct {
	most int64
	used atomic.Int64

	mu       sync.Mutex // owns the maps and the holders' connections
	accounts map[uint64]*holder
	networks map[netip.Addr]*holder
}

// holder is an account or a network with connections.
type holder struct {
	used        atomic.Int64
	connections int
}

// New returns a budget of so many bytes.
func New(most int64) *Budget {
	return &Budget{most: most, accounts: make(map[uint64]*holder), networks: make(map[netip.Addr]*holder)}
}

// Used is how many bytes are held.
func (b *Budget) Used() int64 { return b.used.Load() }

// Share is what one connection holds. Take and Give may be called from any goroutine.
type Share struct {
	budget           *Budget
	account, network *holder
}

// Join returns the share of a new connection, which Leave ends.
func (b *Budget) Join(account uint64, network netip.Addr) *Share {
	network = networkOf(network)
	b.mu.Lock()
	defer b.mu.Unlock()
	return &Share{b, join(b.accounts, account), join(b.networks, network)}
}

// Leave forgets the account and the network if it was their last connection. What the
// share holds must have been given back.
func (b *Budget) Leave(account uint64, network netip.Addr) {
	network = networkOf(network)
	b.mu.Lock()
	defer b.mu.Unlock()
	leave(b.accounts, account)
	leave(b.networks, network)
}

func join[K comparable](all map[K]*holder, key K) *holder {
	h := all[key]
	if h == nil {
		h = &holder{}
		all[key] = h
	}
	h.connections++
	return h
}

func leave[K comparable](all map[K]*holder, key K) {
	if h := all[key]; h != nil {
		if h.connections--; h.connections == 0 {
			delete(all, key)
		}
	}
}

// networkOf is an IPv4 address, or the beginning of the /56 that most IPv6 customers
// have.
func networkOf(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if p, err := a.Prefix(56); err == nil && a.Is6() {
		return p.Addr()
	}
	return a
}

// Take takes n bytes. false means that they would be more than the connection's account
// or network may hold now; nothing was taken then.
func (s *Share) Take(n int) bool {
	size := int64(n)
	free := s.budget.most - s.budget.used.Add(size) + size
	account, network := s.account.used.Add(size), s.network.used.Add(size)
	if !fits(free, account, network) {
		s.Give(n)
		return false
	}
	return true
}

// Give gives n bytes back.
func (s *Share) Give(n int) {
	size := int64(n)
	s.budget.used.Add(-size)
	s.account.used.Add(-size)
	s.network.used.Add(-size)
}

// Room says whether Take(n) would succeed now.
func (s *Share) Room(n int) bool {
	free, size := s.budget.most-s.budget.used.Load(), int64(n)
	return fits(free, s.account.used.Load()+size, s.network.used.Load()+size)
}

// fits says whether an account and its network may hold so much when so much was free.
func fits(free, account, network int64) bool {
	part := int64(accountPart)
	if network > free {
		part = crowdedPart
	}
	return account <= free/part
}
