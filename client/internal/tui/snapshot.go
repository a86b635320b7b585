package tui

import (
	"context"
	"slices"

	"github.com/msrchat/msrchat/client"
)

// answeredWithin is how many unread messages are searched for one of the user's
// own.
const answeredWithin = 100

// snapshot is what is kept on this machine, read at once.
type snapshot struct {
	epoch  uint64 // when the reading began
	chats  []kept
	unsent []client.Outgoing
}

// kept is a conversation of a snapshot.
type kept struct {
	client.Cached
	// answered is the newest message of the user's own, where it is not marked as
	// read: a person who answers, on any device or by a script, has read what is
	// above.
	answered *client.Message
}

// takeSnapshot reads the store: all conversations, and in any case those with the
// people. In the conversations of seen it does not search for answers.
func takeSnapshot(ctx context.Context, b Backend, seen map[uint64]bool, people []string) (snapshot, error) {
	s := snapshot{epoch: b.Epoch()}
	chats, err := b.Chats(ctx)
	if err != nil {
		return s, err
	}
	for _, name := range people {
		c, err := b.Contact(ctx, name)
		if err != nil {
			return s, err
		}
		if !slices.ContainsFunc(chats, func(o client.Cached) bool { return o.ID == c.ID }) {
			chats = append(chats, c)
		}
	}
	me := b.User().ID
	for _, c := range chats {
		k := kept{Cached: c}
		if unread := c.Unread(); unread > 0 && !seen[c.ID] {
			newest, err := b.Stored(ctx, c.ID, 0, min(unread, answeredWithin))
			if err != nil {
				return s, err
			}
			k.answered = lastOwn(newest, c.Own.Read, me)
		}
		s.chats = append(s.chats, k)
	}
	s.unsent, err = b.Unsent(ctx)
	return s, err
}

// lastOwn is the last of the user's own messages behind the read mark, nil where
// there is none.
func lastOwn(messages []client.Message, read, me uint64) *client.Message {
	for i := len(messages) - 1; i >= 0 && messages[i].Seq > read; i-- {
		if messages[i].Sender == me {
			return &messages[i]
		}
	}
	return nil
}
