package conn

import (
	"time"

	"github.com/msrchat/msrchat/shared/errs"
)

// A client sends many messages without waiting. When one is refused for a
// reason that passes, those that it sent behind that one are on their way
// already; taking them would put them before it in the log. So they are refused
// as well, until the first one comes again.

const (
	// turnLimit is how long a refused message is waited for: its client may have
	// given it up. What was behind it on the wire has arrived long before.
	turnLimit = 10 * time.Second
	// maxTurns bounds what a connection can make the server remember. Beyond it
	// all is forgotten.
	maxTurns = MaxUnacknowledged
)

// turns are a connection's refused messages by conversation; only the first of
// each is remembered. Owned by the connection's reader.
type turns map[uint64]turn

type turn struct {
	id    [16]byte
	err   error
	until time.Time
}

// before says why a message may not be taken yet, nil when it may.
func (t turns) before(conversation uint64, id [16]byte) error {
	first, ok := t[conversation]
	if !ok {
		return nil
	}
	if first.id != id && time.Now().Before(first.until) {
		return first.err
	}
	delete(t, conversation)
	return nil
}

// refused remembers a message that was refused.
func (t *turns) refused(conversation uint64, id [16]byte, err error) {
	if !errs.MayPass(err) {
		return // for good: the client goes on without it
	}
	if _, known := (*t)[conversation]; known {
		return
	}
	if *t == nil || len(*t) >= maxTurns {
		*t = make(turns)
	}
	(*t)[conversation] = turn{id, err, time.Now().Add(turnLimit)}
}
