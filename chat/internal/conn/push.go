package conn

import (
	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/frame"
)

// headsPerFrame keeps a frame of heads at some 30 KB.
const headsPerFrame = 2000

// HeadsFrames encodes heads for pushing; none give one empty frame, which tells
// a client that it is up to date.
func HeadsFrames(heads []*chatv1.Head) []byte {
	var out []byte
	for first := true; first || len(heads) > 0; first = false {
		n := min(len(heads), headsPerFrame)
		out = push(out, &chatv1.ServerFrame{Body: &chatv1.ServerFrame_Heads{Heads: &chatv1.Heads{Heads: heads[:n]}}})
		heads = heads[n:]
	}
	return out
}

// EventFrame encodes an event for pushing.
func EventFrame(e *chatv1.Event) []byte {
	return push(nil, &chatv1.ServerFrame{Body: &chatv1.ServerFrame_Event{Event: e}})
}

// push appends a frame; one that cannot be encoded (which no stored text can
// cause, since it was checked on its way in) is left out: a push is a hint.
func push(dst []byte, f *chatv1.ServerFrame) []byte {
	out, _ := frame.Append(dst, f)
	return out
}
