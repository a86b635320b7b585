package budget

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
)

var (
	home  = netip.MustParseAddr("192.0.2.1")
	other = netip.MustParseAddr("192.0.2.2")
)

// fill takes as much as it may, in pieces.
func fill(s *Share, piece int) (taken int) {
	for s.Take(piece) {
		taken += piece
	}
	return taken
}

// However many accounts of however many networks hold all they can, somebody else finds
// room.
func TestTheGreedyLeaveRoom(t *testing.T) {
	t.Parallel()
	const most, piece = 64 << 20, 4 << 10
	for _, c := range []struct {
		name               string
		accounts, networks int
		left               int // of the whole, at least one part of so many
	}{
		{"one account", 1, 1, 2},
		{"twenty accounts at home", 20, 1, 3},
		{"twenty accounts", 20, 20, 7},
		{"a thousand accounts", 1000, 250, 300},
	} {
		b := New(most)
		total := 0
		for again := true; again; {
			again = false
			for i := range c.accounts {
				network := netip.AddrFrom4([4]byte{10, 0, byte(i % c.networks / 250), byte(i % c.networks)})
				s := b.Join(uint64(i), network)
				if s.Take(piece) {
					total += piece
					again = true
				}
			}
		}
		if free := most - total; free < most/c.left {
			t.Errorf("%s: %d bytes of %d are free", c.name, free, most)
		}
		if honest := b.Join(1<<40, netip.MustParseAddr("198.51.100.1")); fill(honest, 1<<10) < 32<<10 {
			t.Errorf("%s: somebody else finds no room", c.name)
		}
	}
}

func TestOneAccountAndOneNetwork(t *testing.T) {
	t.Parallel()
	const most, page = 64 << 20, 256 << 10
	b := New(most)
	if n := fill(b.Join(1, home), 1<<10); n != most/5>>10<<10 {
		t.Errorf("an account holds %d of %d, want a fifth", n, most)
	}
	for account := range uint64(20) {
		fill(b.Join(account, home), 1<<10)
	}
	if n := b.Used(); n < most/2 || n > most*2/3 {
		t.Errorf("a network holds %d of %d, want from half to two thirds", n, most)
	}
	if !b.Join(200, other).Room(4<<20) || b.Join(200, home).Room(4<<20) {
		t.Error("another network has much room, that one has not")
	}
	if !b.Join(200, home).Room(page) {
		t.Error("somebody else of that network cannot read a page")
	}
}

// The devices of a customer with IPv6 are one network.
func TestNetworks(t *testing.T) {
	t.Parallel()
	for a, b := range map[string]string{
		"2001:db8:1:2::3": "2001:db8:1:ff::9", "::ffff:192.0.2.1": "192.0.2.1", "fe80::1%eth0": "fe80::2",
	} {
		if networkOf(netip.MustParseAddr(a)) != networkOf(netip.MustParseAddr(b)) {
			t.Errorf("%s and %s are two networks", a, b)
		}
	}
	if networkOf(netip.MustParseAddr("2001:db8:1:100::")) == networkOf(netip.MustParseAddr("2001:db8:1::")) {
		t.Error("two customers are one network")
	}
}

func TestNothingIsLeft(t *testing.T) {
	t.Parallel()
	b := New(1 << 20)
	var all sync.WaitGroup
	for i := range 64 {
		all.Go(func() {
			account, network := uint64(i%7), home
			if i%2 == 0 {
				network = other
			}
			s := b.Join(account, network)
			defer b.Leave(account, network)
			held := 0
			for range 1000 {
				if n := rand.IntN(4 << 10); s.Take(n) {
					held += n
				}
				if b.Used() > b.most+64*4<<10 { // each may be about to find out that there is no room
					t.Error("more is held than there is")
				}
				n := rand.IntN(held + 1)
				s.Give(n)
				held -= n
			}
			s.Give(held)
		})
	}
	all.Wait()
	if b.Used() != 0 || len(b.accounts) != 0 || len(b.networks) != 0 {
		t.Errorf("left: %d bytes, %d accounts, %d networks", b.Used(), len(b.accounts), len(b.networks))
	}
}
