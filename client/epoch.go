package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/msrchat/msrchat/client/store"
	"github.com/msrchat/msrchat/shared/content"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/text"
)

// A server's id for a conversation is valid in one log epoch: after a restore it may
// belong to a conversation with somebody else. So every write names the epoch that its
// id is from, and is refused in another one.

// InEpoch writes to conversations by ids from one log epoch. Once another one has begun,
// its calls refuse the ids of servers with store.ErrStale (CodeConflict).
type InEpoch struct {
	c     *Client
	epoch uint64
}

// In is for an application that may write before it has handled a Reset, as one with a
// queue of its own does. epoch is that of the last Reset that it has handled or, before
// the first, what Epoch returned before the application got any id. The methods of
// Client itself take every id for one of the present epoch.
func (c *Client) In(epoch uint64) InEpoch { return InEpoch{c, epoch} }

// Epoch is the present log epoch, 0 before the first connection.
func (c *Client) Epoch() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.epoch
}

func (c *Client) setEpoch(epoch uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.epoch == 0 {
		c.firstEpoch = epoch
	}
	c.epoch = epoch
}

// inEpoch is the store's number of an epoch that Epoch returned: ids from before the
// first connection are valid in the first epoch.
func (c *Client) inEpoch(epoch uint64) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if epoch == 0 {
		return c.firstEpoch
	}
	return epoch
}

// Send is Client.Send.
func (e InEpoch) Send(ctx context.Context, conversation uint64, message string) (Outgoing, error) {
	if err := text.Message(message); err != nil {
		return Outgoing{}, err
	}
	if conversation == 0 {
		return Outgoing{}, errs.New(errs.CodeInvalid, "the message has no recipient").In("conversation")
	}
	id, err := store.NewMessageID()
	if err != nil {
		return Outgoing{}, fmt.Errorf("make message id: %w", err)
	}
	out, err := e.enqueue(ctx, Outgoing{
		ID: id, Conversation: conversation, Kind: content.Text, Body: []byte(message), At: time.Now(),
	})
	if err != nil {
		return Outgoing{}, err
	}
	select {
	case e.c.wake <- struct{}{}:
	default: // a signal is there already
	}
	return out, nil
}

func (e InEpoch) enqueue(ctx context.Context, out Outgoing) (Outgoing, error) {
	c, epoch := e.c, e.c.inEpoch(e.epoch)
	got, err := c.opt.Store.Enqueue(ctx, epoch, out)
	if !errors.Is(err, store.ErrStale) || epoch != 0 {
		return got, err
	}
	// Another process was the first to connect.
	if err := c.onOwner(ctx, func(o *owner) error { o.followEpoch(); return nil }); err != nil {
		return Outgoing{}, err
	}
	return c.opt.Store.Enqueue(ctx, c.inEpoch(0), out)
}

// SetRead is Client.SetRead. It returns the own state as it is right afterwards.
func (e InEpoch) SetRead(ctx context.Context, conversation, seq uint64) (OwnState, error) {
	return e.c.setOwn(ctx, e.epoch, conversation, func(o *owner, conv Cached) func(*OwnState) {
		seq, ordinal := o.ordinalOf(conv, seq)
		return func(own *OwnState) { own.SetRead(seq, ordinal) }
	})
}

// SetDraft is Client.SetDraft for an application that says which draft it shows: the
// text replaces that one, and goes below any other. It returns the own state as it is
// right afterwards.
func (e InEpoch) SetDraft(ctx context.Context, conversation uint64, known, draft string) (OwnState, error) {
	return e.c.setDraft(ctx, e.epoch, conversation, draft, func(*owner, uint64) string { return known })
}
