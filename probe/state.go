package probe

import (
	"fmt"
	"net/http"
	"sync"
	"time"
)

const (
	// patience is how long nothing may be verified before the check warns. Longer
	// than a chat server's restart and a leg.
	patience = 45 * time.Second
	// repeatTrouble is after how long the same trouble is logged again.
	repeatTrouble = time.Minute
)

// Broken begins the check's output once a promise was broken; who follows a
// deployment looks for it.
const Broken = "BROKEN PROMISE"

// state is what the check shows. Its mutex owns the fields below it; its methods
// may be called from any goroutine.
type state struct {
	wanted int // messages of the proof

	mu        sync.Mutex
	verified  int
	proven    bool
	good      time.Time // when something was last verified, or the start
	ill       string    // the last trouble since then
	loggedIll time.Time
	fault     *fault // the first broken promise
	faults    int
	// suspicion is a broken promise that is laid to a newcomer.
	suspicion string
	suspected time.Time
}

func newState(wanted int) *state { return &state{wanted: wanted, good: time.Now()} }

// count adds verified messages.
func (s *state) count(n int) {
	if n == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.verified += n
	s.good, s.ill = time.Now(), ""
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

// trouble keeps the text for the check; true means that it is worth a line in
// the log.
func (s *state) trouble(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	worth := s.ill != text || time.Since(s.loggedIll) > repeatTrouble
	s.ill = text
	if worth {
		s.loggedIll = time.Now()
	}
	return worth
}

// broken keeps the first broken promise, or the last that is a newcomer's.
func (s *state) broken(f fault, newcomer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if newcomer != "" {
		s.suspicion, s.suspected = fmt.Sprintf("%s, while release %s comes in, whose own probes judge it", f, newcomer), time.Now()
		return
	}
	s.faults++
	if s.fault == nil {
		s.fault = &f
	}
}

// verdict is the check's answer. Only a broken promise is critical. That is also
// what makes it known at once: while a check's status stays the same, Consul
// tells a new text only after minutes.
func (s *state) verdict(now time.Time) (code int, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.fault != nil:
		return http.StatusServiceUnavailable, fmt.Sprintf("%s: %s (%d in all, %d messages verified)", Broken, *s.fault, s.faults, s.verified)
	case !s.proven:
		text = fmt.Sprintf("proof: %d of %d messages verified", min(s.verified, s.wanted), s.wanted)
		if s.ill != "" {
			text += "; " + s.ill
		}
		return http.StatusTooManyRequests, text
	case s.suspicion != "" && now.Sub(s.suspected) < lingers:
		return http.StatusTooManyRequests, s.suspicion
	case s.ill != "" && now.Sub(s.good) > patience:
		return http.StatusTooManyRequests, fmt.Sprintf("nothing verified for %.0f s: %s", now.Sub(s.good).Seconds(), s.ill)
	}
	return http.StatusOK, fmt.Sprintf("%d messages verified, none lost", s.verified)
}
