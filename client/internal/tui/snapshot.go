package tui

import (
	"context"
	"strconv"
	"strings"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/client/store"
)

// The keys under which the screen keeps things in the store, by chat key.
const (
	draftPrefix = "chat/"
	readPrefix  = "tui.read/"
)

// countMost is how many messages are looked at to count the unread ones of a
// conversation; more are shown as "99+".
const countMost = 100

// snapshot is what is kept on this machine, read at once.
type snapshot struct {
	chats  []known
	unsent []client.Outgoing
	drafts map[string]string // by chat key
}

// known is a conversation of a snapshot.
type known struct {
	client.Cached
	key    string
	read   uint64 // the last message that was read here, 0 if unknown
	unread int
}

// takeSnapshot reads the store. Conversations in counted are known well enough:
// their unread messages are not counted again.
func takeSnapshot(ctx context.Context, b Backend, counted map[uint64]bool) (snapshot, error) {
	var s snapshot
	chats, err := b.Chats(ctx)
	if err != nil {
		return s, err
	}
	me := b.User().ID
	for _, c := range chats {
		k := known{Cached: c, key: chatKey(c.Peer.Name, c.ID)}
		if !counted[c.ID] {
			if err := k.count(ctx, b, me); err != nil {
				return s, err
			}
		}
		s.chats = append(s.chats, k)
	}
	if s.unsent, err = b.Unsent(ctx); err != nil {
		return s, err
	}
	drafts, err := b.Drafts(ctx)
	s.drafts = map[string]string{}
	for key, text := range drafts {
		if key, ok := strings.CutPrefix(key, draftPrefix); ok {
			s.drafts[key] = text
		}
	}
	return s, err
}

// count finds what is unread: what others wrote after the last message that was
// read here or that this user wrote, on whatever machine.
func (k *known) count(ctx context.Context, b Backend, me uint64) error {
	mark, err := b.Meta(ctx, readPrefix+k.key)
	if err != nil {
		return err
	}
	k.read, _ = strconv.ParseUint(mark, 10, 64) // whatever else it says: nothing is read
	if k.Last == nil {
		return nil
	}
	k.read = min(k.read, k.Last.Seq) // the log was restored to an earlier time
	if k.read == k.Last.Seq {
		return nil
	}
	newest, err := b.Stored(ctx, k.ID, 0, countMost)
	if err != nil {
		return err
	}
	for i := len(newest) - 1; i >= 0 && newest[i].Seq > k.read; i-- {
		if newest[i].Sender == me {
			k.read = newest[i].Seq
			break
		}
		k.unread++
	}
	return nil
}

// chatKey names a chat for ever: by the other person, since a conversation has
// no id before a server told it, and another one after a restore.
func chatKey(peer string, conversation uint64) string {
	if peer != "" {
		return store.PeerKey(peer)
	}
	return "#" + strconv.FormatUint(conversation, 10)
}
