package probe

import (
	"fmt"
	"net/http"
	"sync"
	"time"
)

const (
	// warnAfter is how long nothing may be verified before the check warns: longer
	// than a chat server's restart and a round.
	warnAfter = 45 * time.Second
	// logAgain is after how long the same trouble is logged again.
	logAgain = time.Minute
)

// Broken begins the check's output once a promise was broken; the fleet tool looks
// for it while it follows a deployment.
const Broken = "BROKEN PROMISE"

// state is what the check shows. Its mutex owns the fields below it; its methods
// may be called from any goroutine.
type state struct {
	wanted int // messages of the proof

	mu         sync.Mutex
	verified   int
	verifiedAt time.Time // when a message was last verified, or the start
	proven     bool
	problem    string // the last trouble since verifiedAt
	loggedAt   time.Time
	fault      *fault // the first broken promise
	faults     int
	// suspicion is the last broken promise that a newer release is suspected of.
	suspicion   string
	suspectedAt time.Time
}

func newState(wanted int) *state { return &state{wanted: wanted, verifiedAt: time.Now()} }

// count adds verified messages.
func (s *state) count(n int) {
	if n == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.verified += n
	s.verifiedAt, s.problem = time.Now(), ""
}

// total is how many messages were verified.
func (s *state) total() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.verified
}

func (s *state) prove() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.proven = true
}

// trouble keeps the text for the check; true means that it should be logged.
func (s *state) trouble(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	log := s.problem != text || time.Since(s.loggedAt) > logAgain
	s.problem = text
	if log {
		s.loggedAt = time.Now()
	}
	return log
}

// broken keeps the first broken promise, or the last that a newer release is
// suspected of.
func (s *state) broken(f fault, newer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if newer != "" {
		s.suspicion = fmt.Sprintf("%s, while release %s is being deployed, whose own probes judge it", f, newer)
		s.suspectedAt = time.Now()
		return
	}
	s.faults++
	if s.fault == nil {
		s.fault = &f
	}
}

// verdict is the check's answer. Only a broken promise is critical. The change of
// status also makes Consul pass the text on at once: while a status stays the
// same, a new text takes minutes.
func (s *state) verdict(now time.Time) (code int, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.fault != nil:
		return http.StatusServiceUnavailable, fmt.Sprintf("%s: %s (%d in all, %d messages verified)",
			Broken, *s.fault, s.faults, s.verified)
	case !s.proven:
		text = fmt.Sprintf("proof: %d of %d messages verified", min(s.verified, s.wanted), s.wanted)
		if s.problem != "" {
			text += "; " + s.problem
		}
		return http.StatusTooManyRequests, text
	case s.suspicion != "" && now.Sub(s.suspectedAt) < suspectFor:
		return http.StatusTooManyRequests, s.suspicion
	case s.problem != "" && now.Sub(s.verifiedAt) > warnAfter:
		return http.StatusTooManyRequests, fmt.Sprintf("nothing verified for %.0f s: %s",
			now.Sub(s.verifiedAt).Seconds(), s.problem)
	}
	return http.StatusOK, fmt.Sprintf("%d messages verified, none lost", s.verified)
}
