package client

import (
	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"

	"github.com/msrchat/msrchat/shared/errs"
)

// A server of the release before says revision 0 in its Welcome. It has no own states,
// which then stay unsent, and no ordinals: all its events count as unread messages.

// ownStates is the revision from which on servers keep own states.
const ownStates = 1

var errOldServer = errs.New(errs.CodeInvalid, "the server's release is too old for that")

// revision is what the connected server understands.
func (o *owner) revision() uint32 { return o.live.Welcome.GetRevision() }

// since is the revision that a request needs.
func since(f *chatv1.ClientFrame) uint32 {
	switch f.GetBody().(type) {
	case *chatv1.ClientFrame_SetOwnState, *chatv1.ClientFrame_ReadOwnStates:
		return ownStates
	}
	return 0
}

// countAll adds the ordinals that a server of revision 0 does not send.
func countAll(f *chatv1.ServerFrame) {
	switch body := f.GetBody().(type) {
	case *chatv1.ServerFrame_Sent:
		body.Sent.Ordinal = body.Sent.GetSeq()
	case *chatv1.ServerFrame_Event:
		body.Event.Ordinal = body.Event.GetSeq()
	case *chatv1.ServerFrame_HistoryPage:
		for _, e := range body.HistoryPage.GetEvents() {
			e.Ordinal = e.GetSeq()
		}
	case *chatv1.ServerFrame_Heads:
		for _, h := range body.Heads.GetHeads() {
			h.Ordinal = h.GetSeq()
		}
	case *chatv1.ServerFrame_Conversation:
		body.Conversation.Ordinal = body.Conversation.GetHead()
	case *chatv1.ServerFrame_ConversationList:
		for _, c := range body.ConversationList.GetConversations() {
			c.Ordinal = c.GetHead()
		}
	}
}
