// Package hub knows which connections of this server belong to which user.
package hub

import (
	"sync"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
)

// Conn is a connection as others see it. None of its methods blocks.
type Conn interface {
	// ID is unique among all servers, and never 0.
	ID() uint64
	// Session is the session that the connection was opened with.
	Session() uint64
	// Push queues encoded frames. They are dropped on a connection that closes.
	Push(frames []byte)
	// Bye queues a Goodbye as the last frame and closes after it was written.
	Bye(*chatv1.Goodbye)
}

// Hub is the registry. Its mutex owns everything; all methods may be called
// from any goroutine and none blocks for long.
type Hub struct {
	mu    sync.RWMutex
	users map[uint64][]Conn
	conns int
}

// New returns an empty hub.
func New() *Hub { return &Hub{users: make(map[uint64][]Conn)} }

// Add registers a connection of a user.
func (h *Hub) Add(user uint64, c Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.users[user] = append(h.users[user], c)
	h.conns++
}

// Remove forgets a connection; one that is not there is ignored.
func (h *Hub) Remove(user uint64, c Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	conns := h.users[user]
	for i := range conns {
		if conns[i] != c {
			continue
		}
		h.conns--
		if len(conns) == 1 {
			delete(h.users, user)
			return
		}
		// A copy: Deliver may be walking over the old slice.
		rest := make([]Conn, 0, len(conns)-1)
		h.users[user] = append(append(rest, conns[:i]...), conns[i+1:]...)
		return
	}
}

// Deliver pushes encoded frames to every connection of the users but one, 0 for
// none, and returns to how many.
func (h *Hub) Deliver(users []uint64, except uint64, frames []byte) int {
	n := 0
	for _, user := range users {
		for _, c := range h.Of(user) {
			if except == 0 || c.ID() != except {
				c.Push(frames)
				n++
			}
		}
	}
	return n
}

// Of returns the connections of a user. The slice must not be changed.
func (h *Hub) Of(user uint64) []Conn {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.users[user]
}

// Len is the number of connections.
func (h *Hub) Len() int {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.conns
}

// Users lists who is connected.
func (h *Hub) Users() []uint64 {
	h.mu.RLock()
	defer h.mu.RUnlock()
	out := make([]uint64, 0, len(h.users))
	for user := range h.users {
		out = append(out, user)
	}
	return out
}

// Each calls fn with every connection, outside the lock.
func (h *Hub) Each(fn func(user uint64, c Conn)) {
	h.mu.RLock()
	type pair struct {
		user uint64
		c    Conn
	}
	all := make([]pair, 0, h.conns)
	for user, conns := range h.users {
		for _, c := range conns {
			all = append(all, pair{user, c})
		}
	}
	h.mu.RUnlock()
	for _, p := range all {
		fn(p.user, p.c)
	}
}
