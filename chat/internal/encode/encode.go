// Package encode turns what is pushed to clients into frames.
package encode

import (
	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/frame"

	"github.com/msrchat/msrchat/chat/internal/msglog"
)

// headsPerFrame keeps a frame of heads below some 50 KB.
const headsPerFrame = 2000

// Event is the form of an event for clients and peers.
func Event(e *msglog.Event) *chatv1.Event {
	return &chatv1.Event{
		ConversationId: e.Conversation,
		Seq:            e.Seq,
		SenderId:       e.Sender,
		ClientMsgId:    e.ID[:],
		Kind:           uint32(e.Kind),
		Body:           e.Body,
		CreatedAtMs:    e.CreatedAt,
		Ordinal:        e.Ordinal,
	}
}

// AppendEvent encodes an event for pushing.
func AppendEvent(dst []byte, e *chatv1.Event) []byte {
	return push(dst, &chatv1.ServerFrame{Body: &chatv1.ServerFrame_Event{Event: e}})
}

// HeadsFrames encodes heads for pushing. Without heads it returns one empty frame,
// which tells a client that it is up to date.
func HeadsFrames(heads ...*chatv1.Head) []byte {
	var out []byte
	for first := true; first || len(heads) > 0; first = false {
		n := min(len(heads), headsPerFrame)
		out = push(out, &chatv1.ServerFrame{Body: &chatv1.ServerFrame_Heads{Heads: &chatv1.Heads{Heads: heads[:n]}}})
		heads = heads[n:]
	}
	return out
}

// OwnStateFrame encodes an own state for pushing.
func OwnStateFrame(s *chatv1.OwnState) []byte {
	return push(nil, &chatv1.ServerFrame{Body: &chatv1.ServerFrame_OwnState{OwnState: s}})
}

// push appends a frame. A frame that cannot be encoded is left out: a push is a
// hint, and what is stored was checked before.
func push(dst []byte, f *chatv1.ServerFrame) []byte {
	out, _ := frame.Append(dst, f)
	return out
}
