package client

import (
	"errors"
	"time"

	"github.com/msrchat/msrchat/client/store"
)

// wait registers a reply, a channel of capacity one, for a message's outcome. It is
// closed if there will be none.
func (o *owner) wait(id MessageID, reply chan Outgoing) {
	o.outbox.waiters[id] = append(o.outbox.waiters[id], reply)
	o.lookUp(id) // it may be settled already
	if soon := time.Now().Add(pollOften); soon.Before(o.outbox.lookAt) {
		o.outbox.lookAt = soon
	}
}

func (o *owner) unwait(id MessageID, reply chan Outgoing) {
	list := o.outbox.waiters[id]
	for i := range list {
		if list[i] == reply {
			list = append(list[:i], list[i+1:]...)
			break
		}
	}
	if len(list) == 0 {
		delete(o.outbox.waiters, id)
		return
	}
	o.outbox.waiters[id] = list
}

func (o *owner) dropWaiters() {
	for _, list := range o.outbox.waiters {
		for _, reply := range list {
			close(reply)
		}
	}
	clear(o.outbox.waiters)
}

// nextPoll is when to look for changes by others in the store, if at all.
func (o *owner) nextPoll() (time.Time, bool) {
	idle := !o.opt.Store.Shared() || o.state == LoggedOut || o.state == Stopped
	return o.outbox.lookAt, !idle || o.outbox.again
}

// poll looks for changes by other processes in the store.
func (o *owner) poll(now time.Time) {
	b := &o.outbox
	if due, ok := o.nextPoll(); !ok || now.Before(due) {
		return
	}
	b.lookAt = now.Add(pollSeldom)
	if len(b.waiters) > 0 || b.locked {
		b.lookAt = now.Add(pollOften)
	}
	changed, err := o.opt.Store.Changed(o.disk)
	if err != nil {
		o.log.Error("store not watched", "err", err)
		return
	}
	if changed {
		o.followEpoch()
		o.checkMoves()
		o.followOwn()
		o.own.look()
		b.maybe, b.more = true, true
		if !o.notify(OutboxChanged{}) {
			b.owed = true
		}
	}
	if changed || b.again {
		b.again = false
		for id := range b.waiters {
			o.lookUp(id)
		}
	}
}

// followEpoch takes over an epoch that another process began, while this one has no
// server to learn it from.
func (o *owner) followEpoch() {
	if o.live != nil {
		return
	}
	st, err := o.opt.Store.State(o.disk)
	if err == nil && st.Epoch != o.sync.epoch {
		err = o.beginEpoch(st.Epoch)
	}
	if err != nil {
		o.log.Error("epoch not read", "err", err)
	}
}

// lookUp answers those who wait for a message that is settled already, by this
// process or another one, or never will be.
func (o *owner) lookUp(id MessageID) {
	list := o.outbox.waiters[id]
	out, err := o.opt.Store.Outgoing(o.disk, id)
	switch {
	case err != nil && !errors.Is(err, store.ErrNotFound):
		o.log.Error("outbox not read", "err", err)
		o.outbox.again = true
		return
	case err == nil && out.State == Queued && o.state != LoggedOut && o.state != Stopped:
		return
	case err == nil && out.State != Queued:
		for _, reply := range list {
			reply <- out
		}
	default:
		for _, reply := range list {
			close(reply)
		}
	}
	delete(o.outbox.waiters, id)
}
