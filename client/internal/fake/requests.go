package fake

import (
	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"

	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/frame"
	"github.com/msrchat/msrchat/shared/text"
)

func (s *Server) open(c *serverConn, name string) *chatv1.ServerFrame {
	if refuse := s.now().Open; refuse != nil {
		if err := refuse(name); err != nil {
			return failure(err)
		}
	}
	_, key, err := text.FindName(name)
	if err != nil {
		return failure(err)
	}
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	peer := s.log.byKey(key)
	if peer == nil {
		return failure(errs.New(errs.CodeNotFound, "there is nobody named %s", name))
	}
	conv := s.log.open(c.user, peer).describe(c.user)
	return &chatv1.ServerFrame{Body: &chatv1.ServerFrame_Conversation{Conversation: conv}}
}

// decide asks the test for a message's fate, and keeps held lanes held.
func (s *Server) decide(c *serverConn, m *chatv1.Send) (Fate, error) {
	id, conv := string(m.GetClientMsgId()), m.GetConversationId()
	if lane, ok := c.held[conv]; ok && lane.id != id {
		return Answer, lane.err
	}
	delete(c.held, conv)
	decide := s.now().Send
	if decide == nil {
		return Answer, nil
	}
	fate, err := decide(m)
	if errs.CodeOf(err) == errs.CodeUnavailable {
		c.held[conv] = heldLane{id, err}
	}
	return fate, err
}

// send does with a Send what its fate is.
func (s *Server) send(c *serverConn, id uint64, m *chatv1.Send) bool {
	fate, err := s.decide(c, m)
	if err != nil {
		refusal := failure(err)
		refusal.RequestId = id
		s.write(c, refusal)
		return true
	}
	if fate == CutBefore {
		return false
	}
	s.log.mu.Lock()
	var ev *chatv1.Event
	var existing bool
	ev, existing, err = s.log.append(c.user, m)
	s.log.mu.Unlock()
	if err == nil && !existing {
		defer s.log.push(ev)
	}
	answer := &chatv1.ServerFrame{Body: &chatv1.ServerFrame_Sent{Sent: &chatv1.Sent{
		ConversationId: m.GetConversationId(), Seq: ev.GetSeq(), Ordinal: ev.GetOrdinal(),
		CreatedAtMs: ev.GetCreatedAtMs(),
		Existing:    existing,
	}}}
	if err != nil {
		answer = failure(err)
	}
	answer.RequestId = id
	switch fate {
	case CutAfter:
		return false
	case CutInside:
		wire, err := frame.Append(nil, answer)
		if err != nil {
			panic(err)
		}
		c.raw(wire[:len(wire)/2+2])
		return false
	case Swallow:
		c.mu.Lock()
		c.waiting++
		waiting := c.waiting
		c.mu.Unlock()
		s.mu.Lock()
		s.most = max(s.most, waiting)
		s.mu.Unlock()
		return true
	}
	s.write(c, answer)
	return true
}
