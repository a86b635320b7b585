package tui

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/msrchat/msrchat/client"
)

// eventsMsg is what happened, in order.
type eventsMsg []client.Event

// endedMsg says that no events follow: the client has ended.
type endedMsg struct{}

const (
	// batchTime is how long events are gathered before one redraw shows them all:
	// a frame at 60 Hz. It bounds the redraws while a backlog arrives.
	batchTime = 16 * time.Millisecond
	// batchSize bounds the events of a redraw.
	batchSize = 512
)

// pump passes a client's events to the program, in order, until they end or ctx
// does. It is the only one to read them. send blocks while the program is busy;
// the client then waits, and fetches later what it did not accept.
func pump(ctx context.Context, events <-chan client.Event, send func(tea.Msg)) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("read events: panic: %v\n%s", r, debug.Stack())
		}
	}()
	for {
		var batch eventsMsg
		select {
		case e, ok := <-events:
			if !ok {
				send(endedMsg{})
				return nil
			}
			batch = append(batch, e)
		case <-ctx.Done():
			return nil
		}
		full := time.NewTimer(batchTime)
	gather:
		for len(batch) < batchSize {
			select {
			case e, ok := <-events:
				if !ok {
					break gather // the next round sends endedMsg
				}
				batch = append(batch, e)
			case <-full.C:
				break gather
			case <-ctx.Done():
				break gather
			}
		}
		full.Stop()
		send(batch)
	}
}
