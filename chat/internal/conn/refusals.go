package conn

import (
	"time"

	"github.com/msrchat/msrchat/shared/errs"
)

// A client sends many messages without waiting for answers. When one is refused
// for a reason that passes, the messages behind it are on their way already. If
// the server took them, they would stand before the refused one in the log. So it
// refuses them too, until the first one comes again.

const (
	// refusalLimit is how long later messages are held back: the client may have
	// given up the refused one. What was behind it on the wire has arrived long
	// before.
	refusalLimit = 10 * time.Second
	// maxRefusals bounds what the server remembers for a connection. Beyond it all
	// is forgotten.
	maxRefusals = MaxUnacknowledged
)

// refusals are a connection's refused messages that hold back later ones: the
// first of each conversation. Owned by the connection's reader.
type refusals map[uint64]refusal

type refusal struct {
	id    [16]byte
	err   error
	until time.Time
}

// check says why a message may not be taken yet, nil when it may.
func (r refusals) check(conversation uint64, id [16]byte) error {
	first, ok := r[conversation]
	if !ok {
		return nil
	}
	if first.id != id && time.Now().Before(first.until) {
		return first.err
	}
	delete(r, conversation)
	return nil
}

// add remembers a message that was refused.
func (r *refusals) add(conversation uint64, id [16]byte, err error) {
	if !errs.MayPass(err) {
		return // the client goes on without it
	}
	if _, ok := (*r)[conversation]; ok {
		return
	}
	if *r == nil || len(*r) >= maxRefusals {
		*r = make(refusals)
	}
	(*r)[conversation] = refusal{id, err, time.Now().Add(refusalLimit)}
}
