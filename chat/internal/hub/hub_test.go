package hub_test

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"

	"github.com/msrchat/msrchat/chat/internal/hub"
)

// conn counts its pushes.
type conn struct {
	id     uint64
	pushed atomic.Int64
}

func (c *conn) ID() uint64          { return c.id }
func (c *conn) Session() uint64     { return c.id }
func (c *conn) Push([]byte)         { c.pushed.Add(1) }
func (c *conn) Bye(*chatv1.Goodbye) {}

func TestConnectionsOfUsers(t *testing.T) {
	h := hub.New()
	phone, laptop, other := &conn{id: 1}, &conn{id: 2}, &conn{id: 3}
	h.Add(7, phone)
	h.Add(7, laptop)
	h.Add(8, other)
	if n := h.Deliver([]uint64{7, 8, 9}, 0, []byte("x")); n != 3 || h.Len() != 3 {
		t.Errorf("delivered to %d of %d", n, h.Len())
	}
	users := h.Users()
	slices.Sort(users)
	if !slices.Equal(users, []uint64{7, 8}) {
		t.Errorf("users %v", users)
	}
	before := h.Of(7)
	h.Remove(7, phone)
	h.Remove(7, phone) // again
	h.Remove(8, phone) // another user's
	h.Remove(9, phone) // no such user
	if len(before) != 2 || before[0] != phone {
		t.Error("a list that was handed out has changed")
	}
	if n := h.Deliver([]uint64{7, 8}, 0, []byte("x")); n != 2 || phone.pushed.Load() != 1 || laptop.pushed.Load() != 2 {
		t.Errorf("delivered to %d; the phone got %d, the laptop %d", n, phone.pushed.Load(), laptop.pushed.Load())
	}
	n := h.Deliver([]uint64{7, 8}, laptop.id, []byte("x"))
	if n != 1 || laptop.pushed.Load() != 2 || other.pushed.Load() != 3 {
		t.Errorf("delivered to %d; the laptop, left out, got %d, the other %d",
			n, laptop.pushed.Load(), other.pushed.Load())
	}
	seen := map[uint64]uint64{}
	h.Each(func(user uint64, c hub.Conn) {
		seen[user] = c.ID()
		h.Remove(user, c) // may be called from inside
	})
	if len(seen) != 2 || seen[7] != 2 || seen[8] != 3 || h.Len() != 0 || len(h.Users()) != 0 {
		t.Errorf("saw %v, left %d", seen, h.Len())
	}
}

// While connections are added and removed, others get each delivery once.
func TestAddingAndRemovingWhileOthersDeliver(t *testing.T) {
	h := hub.New()
	const users, rounds = 8, 200
	stays := make([]*conn, users)
	for user := range stays {
		stays[user] = &conn{id: uint64(user)}
		h.Add(uint64(user), stays[user])
	}
	var all sync.WaitGroup
	for user := range uint64(users) {
		all.Go(func() {
			for n := range uint64(rounds) {
				c := &conn{id: 1000 + n}
				h.Add(user, c)
				h.Deliver([]uint64{user}, 0, nil)
				if c.pushed.Load() == 0 {
					t.Error("a registered connection got nothing")
				}
				h.Remove(user, c)
			}
		})
		all.Go(func() {
			for range rounds {
				h.Deliver([]uint64{user}, 0, nil)
				h.Each(func(uint64, hub.Conn) {})
			}
		})
	}
	all.Wait()
	for user, c := range stays {
		if got := c.pushed.Load(); got != 2*rounds {
			t.Errorf("user %d got %d of %d", user, got, 2*rounds)
		}
	}
	if h.Len() != users {
		t.Errorf("%d are left", h.Len())
	}
}
