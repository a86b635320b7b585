package fake

import (
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"

	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/text"
)

// Own states, by the rules of the chat server (chat/internal/ownstate).

// Own is a user's own state in a conversation, nil where there is none.
func (l *Log) Own(conv uint64, user string) *chatv1.OwnState {
	l.mu.Lock()
	defer l.mu.Unlock()
	return proto.CloneOf(*l.conv(conv).ownOf(l.byKey(user)))
}

func (c *conversation) ownOf(u *user) **chatv1.OwnState {
	if c.people[0] == u {
		return &c.own[0]
	}
	return &c.own[1]
}

// head is the conversation's head for a user.
func (c *conversation) head(u *user) *chatv1.Head {
	return &chatv1.Head{
		ConversationId: c.id, Seq: uint64(len(c.events)), Ordinal: c.ordinal(), OwnState: (*c.ownOf(u)).GetNumber(),
	}
}

// setOwn changes a user's own state and returns it as it is afterwards.
func (l *Log) setOwn(u *user, set *chatv1.SetOwnState) (state *chatv1.OwnState, changed bool, err error) {
	c := l.conv(set.GetConversationId())
	switch {
	case c == nil || !c.has(u):
		return nil, false, errs.New(errs.CodeNotFound, "there is no such conversation")
	case len(set.GetDraft().GetText()) > text.MaxMessageBytes:
		return nil, false, errs.New(errs.CodeTooLarge, "the draft is too long").In("draft")
	case set.GetReadSeq() > uint64(len(c.events)):
		return nil, false, errs.New(errs.CodeInvalid, "the log does not reach that far").In("read_seq")
	}
	at := c.ownOf(u)
	if *at == nil {
		*at = &chatv1.OwnState{ConversationId: c.id}
	}
	state = proto.CloneOf(*at) // what was sent before stays as it was
	if seq := set.GetReadSeq(); seq > state.GetReadSeq() {
		state.ReadSeq, state.ReadOrdinal, changed = seq, c.events[seq-1].GetOrdinal(), true
	}
	now := time.Now().UnixMilli()
	if d := set.GetDraft(); d != nil && wins(d, set.GetBaseNumber(), state.GetDraft(), now) {
		state.Draft = &chatv1.Draft{
			Text: d.GetText(), EditedAtMs: min(d.GetEditedAtMs(), now), Number: state.GetNumber() + 1,
		}
		changed = true
	}
	if changed {
		state.Number++
		*at = state
	}
	return state, changed, nil
}

func wins(d *chatv1.Draft, base uint64, present *chatv1.Draft, now int64) bool {
	if d.GetText() == present.GetText() {
		return false
	}
	return base >= present.GetNumber() || min(d.GetEditedAtMs(), now) > present.GetEditedAtMs()
}

// older counts a request that a server of revision 0 does not know, and refuses it.
func (s *Server) older() *chatv1.ServerFrame {
	if s.Revision > 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unknown++
	return failure(errs.New(errs.CodeInvalid, "this server does not know that request"))
}

func (s *Server) setOwn(c *serverConn, set *chatv1.SetOwnState) *chatv1.ServerFrame {
	if refusal := s.older(); refusal != nil {
		return refusal
	}
	if refuse := s.now().Own; refuse != nil {
		if err := refuse(set); err != nil {
			return failure(err)
		}
	}
	s.log.mu.Lock()
	state, changed, err := s.log.setOwn(c.user, set)
	s.log.mu.Unlock()
	if err != nil {
		return failure(err)
	}
	answer := &chatv1.ServerFrame{Body: &chatv1.ServerFrame_OwnState{OwnState: state}}
	if changed {
		s.log.pushOwn(c, answer)
	}
	return answer
}

// pushOwn hands an own state to the user's other connections.
func (l *Log) pushOwn(from *serverConn, f *chatv1.ServerFrame) {
	l.mu.Lock()
	servers := slices.Clone(l.servers)
	l.mu.Unlock()
	for _, s := range servers {
		if s.Revision == 0 {
			continue
		}
		for _, c := range s.connections() {
			if c.user == from.user && c != from {
				s.write(c, f)
			}
		}
	}
}

func (s *Server) readOwn(c *serverConn, ids []uint64) *chatv1.ServerFrame {
	if refusal := s.older(); refusal != nil {
		return refusal
	}
	if len(ids) > s.MaxPage {
		return failure(errs.New(errs.CodeTooLarge, "too many conversations at once"))
	}
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	out := &chatv1.OwnStates{}
	size := 0
	for _, id := range ids {
		state := &chatv1.OwnState{ConversationId: id}
		if conv := s.log.conv(id); conv != nil && conv.has(c.user) && *conv.ownOf(c.user) != nil {
			state = *conv.ownOf(c.user)
		}
		if size += len(state.GetDraft().GetText()); size > s.MaxOwnBytes && len(out.States) > 0 {
			break
		}
		out.States = append(out.States, state)
	}
	return &chatv1.ServerFrame{Body: &chatv1.ServerFrame_OwnStates{OwnStates: out}}
}

// older takes out of a frame what a server of revision 0 does not tell.
func older(f *chatv1.ServerFrame) *chatv1.ServerFrame {
	f = proto.CloneOf(f)
	switch body := f.GetBody().(type) {
	case *chatv1.ServerFrame_Sent:
		body.Sent.Ordinal = 0
	case *chatv1.ServerFrame_Event:
		body.Event.Ordinal = 0
	case *chatv1.ServerFrame_HistoryPage:
		for _, e := range body.HistoryPage.GetEvents() {
			e.Ordinal = 0
		}
	case *chatv1.ServerFrame_Conversation:
		body.Conversation.Ordinal = 0
	case *chatv1.ServerFrame_ConversationList:
		for _, c := range body.ConversationList.GetConversations() {
			c.Ordinal = 0
		}
	case *chatv1.ServerFrame_Heads:
		body.Heads.Heads = slices.DeleteFunc(body.Heads.GetHeads(), func(h *chatv1.Head) bool {
			return h.GetSeq() == 0
		})
		for _, h := range body.Heads.GetHeads() {
			h.Ordinal, h.OwnState = 0, 0
		}
	}
	return f
}
