package probe

import (
	"context"
	"errors"
	"fmt"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
)

// toldWithin is how many heartbeats a reader may wait to be told. The promise is
// one; a verdict that rolls a deployment back is given later.
const toldWithin = 3

// awaitTold returns when every reader was told of its messages. Those who
// listened all the time, to a server that still answers, and were not, are
// faults. It is called only after an exchange without trouble: repair needs the
// database too.
func (l *leg) awaitTold(ctx context.Context) error {
	waiting := l.probe.book.untold()
	if len(waiting) == 0 {
		return nil
	}
	limit := toldWithin * waiting[0].at.heartbeat()
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); {
		if !pause(ctx, 20*time.Millisecond) {
			return ctx.Err()
		}
		if waiting = l.probe.book.untold(); len(waiting) == 0 {
			return nil
		}
	}
	// A server that stood still gets a heartbeat from when it answers again.
	for _, m := range waiting {
		if err := answers(ctx, m.at); err != nil {
			return err
		}
	}
	if !pause(ctx, waiting[0].at.heartbeat()) {
		return ctx.Err()
	}
	var faults []fault
	for _, m := range l.probe.book.untold() {
		if answers(ctx, m.at) == nil {
			faults = append(faults, fault{undelivered, fmt.Sprintf("%s: the reader listened and was told nothing for %v", m, time.Since(m.acked).Round(time.Second))})
		}
	}
	l.probe.broken(faults)
	return nil
}

func answers(ctx context.Context, on *line) error {
	_, err := on.ask(ctx, &chatv1.ClientFrame{Body: &chatv1.ClientFrame_Ping{Ping: &chatv1.Ping{}}})
	return err
}

// verify compares every acknowledged message with the log, also those of legs
// before that could not be read then, and returns how many it settled.
func (l *leg) verify(ctx context.Context) (verified int, err error) {
	for talk, due := range l.probe.book.due() {
		faults, failed := l.compare(ctx, talk, due)
		if failed == nil && len(faults) > 0 {
			// Once more, a moment later: what is condemned should really be so.
			if !pause(ctx, time.Second) {
				return verified, ctx.Err()
			}
			again, failedAgain := l.compare(ctx, talk, due)
			if failedAgain == nil && len(again) == 0 {
				err = errors.Join(err, fmt.Errorf("the log was read wrong once: %s", faults[0]))
			}
			faults, failed = again, failedAgain
		}
		if failed != nil {
			err = errors.Join(err, failed)
			continue // due stays due
		}
		l.probe.broken(faults)
		l.probe.book.settle(due)
		l.probe.state.count(len(due))
		verified += len(due)
	}
	return verified, err
}

// compare reads the part of the log and examines it.
func (l *leg) compare(ctx context.Context, talk uint64, due []*message) ([]fault, error) {
	events, head, err := l.history(ctx, due)
	if err != nil {
		return nil, err
	}
	if faults := l.probe.book.examine(due, events, 1, head); len(faults) == 0 {
		return nil, nil
	}
	first, err := l.probe.people.firstSeq(ctx, talk)
	if err != nil {
		return nil, err
	}
	return l.probe.book.examine(due, events, first, head), nil
}

// history reads what the reader of the last message sees, or its sender where
// the reader's server does not answer.
func (l *leg) history(ctx context.Context, due []*message) (events []*chatv1.Event, head uint64, err error) {
	last := due[len(due)-1]
	for _, user := range []uint64{last.reader, last.sender} {
		on, failed := l.ends[user].get(ctx)
		if failed == nil {
			if events, head, failed = on.pages(ctx, last.talk, due[0].seq, last.seq); failed == nil {
				return events, head, nil
			}
		}
		err = errors.Join(err, failed)
	}
	return nil, 0, err
}
