package mailbox

import (
	"slices"
	"strings"
	"sync"
	"time"
)

// Message is an accepted mail.
type Message struct {
	ID       uint64    `json:"id"` // ascending in the order of arrival
	From     string    `json:"from"`
	To       []string  `json:"to"` // of the envelope
	Subject  string    `json:"subject"`
	Text     string    `json:"text"` // the plain text part, decoded
	Received time.Time `json:"received"`
}

// store keeps the newest messages. The mutex owns both fields.
type store struct {
	mu   sync.Mutex
	ring []Message // oldest first
	last uint64
	most int
}

func newStore(most int) *store { return &store{most: most} }

func (s *store) add(m Message) Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	m.ID = s.last
	if len(s.ring) == s.most {
		s.ring = slices.Delete(s.ring, 0, 1)
	}
	s.ring = append(s.ring, m)
	return m
}

// find returns up to limit messages to the address, or to all if it is empty,
// newest first. It ignores case, because people type addresses.
func (s *store) find(address string, limit int) []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := []Message{}
	for _, m := range slices.Backward(s.ring) {
		if len(found) == limit {
			break
		}
		if address == "" || slices.ContainsFunc(m.To, func(to string) bool { return strings.EqualFold(to, address) }) {
			found = append(found, m)
		}
	}
	return found
}
