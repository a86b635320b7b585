// Package hub is the registry of this server's connections by user.
package hub

import (
	"sync"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
)

// Conn is what other packages use of a connection. None of its methods blocks.
type Conn interface {
	// ID is unique among all servers, and never 0.
	ID() uint64
	// Session is the session that the connection was opened with.
	Session() uint64
	// Push queues encoded frames. A connection that closes drops them.
	Push(frames []byte)
	// Bye queues a Goodbye as the last frame and closes after it was written.
	Bye(*chatv1.Goodbye)
}

// Hub is the registry. Its mutex owns everything. All methods may be called from any
// goroutine and none blocks.
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

// Remove removes a connection. One that is not registered is ignored.
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
		// A copy, because Deliver may be iterating over the old slice.
		others := make([]Conn, 0, len(conns)-1)
		h.users[user] = append(append(others, conns[:i]...), conns[i+1:]...)
		return
	}
}

// Deliver pushes encoded frames to every connection of the users except one, 0 for
// none, and returns the number of these connections.
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

// Users lists the connected users.
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
