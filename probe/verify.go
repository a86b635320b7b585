package probe

import (
	"context"
	"errors"
	"fmt"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/retry"
)

const (
	// deliveredWithin is how many heartbeats a delivery may take. The promise is
	// one; a verdict that rolls a deployment back is given later.
	deliveredWithin = 3
	// deliveredEvery is how often undelivered messages are looked for meanwhile.
	deliveredEvery = 20 * time.Millisecond
	// compareAgain is the wait before a fault in the log is confirmed.
	compareAgain = time.Second
)

// awaitDelivery returns when every reader got its messages. Readers that were
// connected all the time, to a server that still answers, and did not, are
// faults. It is called only after an exchange without trouble: repair needs the
// database too.
func (r *round) awaitDelivery(ctx context.Context) error {
	tracker := r.probe.tracker
	waiting := tracker.undelivered()
	if len(waiting) == 0 {
		return nil
	}
	heartbeat := waiting[0].listening.wire.Heartbeat()
	for deadline := time.Now().Add(deliveredWithin * heartbeat); time.Now().Before(deadline); {
		if !retry.Sleep(ctx, deliveredEvery) {
			return ctx.Err()
		}
		if waiting = tracker.undelivered(); len(waiting) == 0 {
			return nil
		}
	}
	// A server that was stopped gets a heartbeat from when it answers again.
	for _, m := range waiting {
		if err := m.listening.ping(ctx); err != nil {
			return err
		}
	}
	if !retry.Sleep(ctx, heartbeat) {
		return ctx.Err()
	}
	var faults []fault
	for _, m := range tracker.undelivered() {
		if m.listening.ping(ctx) == nil {
			faults = append(faults, faultf(undelivered, "%s: the reader was connected and got nothing for %v",
				m, time.Since(m.acked).Round(time.Second)))
		}
	}
	r.probe.broken(faults)
	return nil
}

// verify compares every acknowledged message with the log, those of earlier rounds
// included that could not be read then, and returns how many it settled.
func (r *round) verify(ctx context.Context) (verified int, err error) {
	for conversation, due := range r.probe.tracker.due() {
		faults, failed := r.compare(ctx, conversation, due)
		if failed == nil && len(faults) > 0 {
			// Read once more, so that a single wrong answer is no verdict.
			if !retry.Sleep(ctx, compareAgain) {
				return verified, ctx.Err()
			}
			again, failedAgain := r.compare(ctx, conversation, due)
			if failedAgain == nil && len(again) == 0 {
				err = errors.Join(err, fmt.Errorf("one of two reads of the log was wrong: %s", faults[0]))
			}
			faults, failed = again, failedAgain
		}
		if failed != nil {
			err = errors.Join(err, failed)
			continue // due stays due
		}
		r.probe.broken(faults)
		r.probe.tracker.settle(due)
		r.probe.state.count(len(due))
		verified += len(due)
	}
	return verified, err
}

// compare reads the part of the log and compares it.
func (r *round) compare(ctx context.Context, conversation uint64, due []*message) ([]fault, error) {
	events, head, err := r.history(ctx, due)
	if err != nil {
		return nil, err
	}
	if faults := r.probe.tracker.compare(due, events, 1, head); len(faults) == 0 {
		return nil, nil
	}
	first, err := r.probe.accounts.firstSeq(ctx, conversation)
	if err != nil {
		return nil, err
	}
	return r.probe.tracker.compare(due, events, first, head), nil
}

// history reads what the reader of the last message sees, or its sender where the
// reader's server does not answer.
func (r *round) history(ctx context.Context, due []*message) (events []*chatv1.Event, head uint64, err error) {
	last := due[len(due)-1]
	for _, user := range []uint64{last.reader, last.sender} {
		c, failed := r.participants[user].connected(ctx)
		if failed == nil {
			events, head, failed = c.history(ctx, last.conversation, due[0].seq, last.seq)
		}
		if failed == nil {
			return events, head, nil
		}
		err = errors.Join(err, failed)
	}
	return nil, 0, err
}
