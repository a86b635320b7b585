// Package floor has the servers that chat servers are compared with. They speak
// the same frames and do less, so that a measurement says how much the rest costs.
// They verify no token and keep nothing across a restart.
//
//   - relay stores nothing: a message is acknowledged and relayed at once.
//   - db0 inserts bare rows into the same database, with group commit over one
//     connection: a batch takes what waits, and is acknowledged and relayed after
//     its commit. A message that is sent twice is stored twice.
//   - schema is db0 with the real table of events, its unique key included.
package floor

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/content"
	"github.com/msrchat/msrchat/shared/session"
	"github.com/msrchat/msrchat/shared/wire"
)

// Kind is which floor.
type Kind string

// The kinds, each of which does more than the one before.
const (
	Relay  Kind = "relay"
	DB0    Kind = "db0"
	Schema Kind = "schema"
)

// Kinds lists them.
func Kinds() []Kind { return []Kind{Relay, DB0, Schema} }

// maxFrame is the largest frame that a client may send.
const maxFrame = 1 << 20

// namePrefix and a number are the name of a floor's user.
const namePrefix = "floor-"

// Name is the name of the user with a number, from 0; Token logs them in. There
// are as many users as there are numbers.
func Name(i int) string { return namePrefix + strconv.Itoa(i) }

// Token is the session token of the user with a number.
func Token(i int) []byte {
	token := make([]byte, session.TokenBytes)
	binary.BigEndian.PutUint64(token, userID(i))
	return token
}

// userID is never 0.
func userID(i int) uint64 { return uint64(i) + 1 }

// Server is one floor. mu owns users.
type Server struct {
	kind      Kind
	committer *committer // nil for relay

	mu    sync.RWMutex
	users map[uint64]*conn
}

// NewServer returns a floor. A kind that stores makes its table anew; relay
// needs no database.
func NewServer(ctx context.Context, kind Kind, db *sql.DB) (*Server, error) {
	s := &Server{kind: kind, users: make(map[uint64]*conn)}
	switch kind {
	case Relay:
		return s, nil
	case DB0, Schema:
	default:
		return nil, fmt.Errorf("there is no floor %q; there are %v", kind, Kinds())
	}
	var err error
	s.committer, err = newCommitter(ctx, db, kind)
	return s, err
}

// Serve accepts and serves until ctx ends, then closes the listener and every
// connection, and drops the table.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	var conns, committing sync.WaitGroup
	var failure error // of the committer; read after it ended
	if s.committer != nil {
		committing.Go(func() {
			if failure = s.committer.run(); failure != nil {
				_ = l.Close()
			}
		})
	}
	for {
		nc, err := l.Accept()
		if err != nil {
			break
		}
		closing := context.AfterFunc(ctx, func() { _ = nc.Close() })
		conns.Go(func() {
			defer closing()
			s.serve(nc)
		})
	}
	conns.Wait()
	if s.committer == nil {
		return nil
	}
	s.committer.stop()
	committing.Wait()
	return errors.Join(failure, s.committer.drop(context.WithoutCancel(ctx)))
}

// conn is one client. serve reads it; any goroutine may flush out.
type conn struct {
	nc   net.Conn
	user uint64
	out  outbox
	// seqs are the last sequence numbers that relay gave, by conversation; serve
	// owns them. Each conversation's messages come from one client only.
	seqs map[uint64]uint64
}

// next numbers a message.
func (c *conn) next(conversation uint64) uint64 {
	if c.seqs == nil {
		c.seqs = make(map[uint64]uint64, 1)
	}
	c.seqs[conversation]++
	return c.seqs[conversation]
}

func (s *Server) serve(nc net.Conn) {
	c := &conn{nc: nc}
	c.out.nc = nc
	var touched []*conn // whose outboxes this burst filled
	// A client that breaks the protocol is disconnected without a Goodbye.
	_ = wire.Scan(nc, maxFrame, func(body []byte) error {
		var f chatv1.ClientFrame
		if err := proto.Unmarshal(body, &f); err != nil {
			return err
		}
		var err error
		touched, err = s.handle(c, &f, touched)
		return err
	}, func() {
		for _, t := range touched {
			t.out.flush()
		}
		touched = touched[:0]
	})
	_ = nc.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users[c.user] == c {
		delete(s.users, c.user)
	}
}

var errProtocol = errors.New("a floor does not serve that request")

func (s *Server) handle(c *conn, f *chatv1.ClientFrame, touched []*conn) ([]*conn, error) {
	answer := &chatv1.ServerFrame{RequestId: f.GetRequestId()}
	switch body := f.GetBody().(type) {
	case *chatv1.ClientFrame_Hello:
		if len(body.Hello.GetToken()) != session.TokenBytes {
			return touched, errProtocol
		}
		c.user = binary.BigEndian.Uint64(body.Hello.GetToken())
		s.mu.Lock()
		s.users[c.user] = c
		s.mu.Unlock()
		answer.Body = &chatv1.ServerFrame_Welcome{Welcome: &chatv1.Welcome{
			UserId: c.user, Instance: string(s.kind), Revision: 1,
		}}
	case *chatv1.ClientFrame_Ping:
		answer.Body = &chatv1.ServerFrame_Pong{Pong: &chatv1.Pong{}}
	case *chatv1.ClientFrame_OpenDirect:
		i, err := strconv.Atoi(strings.TrimPrefix(body.OpenDirect.GetPeerName(), namePrefix))
		if err != nil || i < 0 {
			return touched, errProtocol
		}
		answer.Body = &chatv1.ServerFrame_Conversation{Conversation: &chatv1.Conversation{
			Id: conversation(c.user, userID(i)),
		}}
	case *chatv1.ClientFrame_History:
		// There is no log: pushes are not repeated.
		answer.Body = &chatv1.ServerFrame_HistoryPage{HistoryPage: &chatv1.HistoryPage{
			ConversationId: body.History.GetConversationId(),
		}}
	case *chatv1.ClientFrame_Send:
		return s.send(c, f.GetRequestId(), body.Send, touched)
	default:
		return touched, errProtocol
	}
	c.out.push(answer)
	return append(touched, c), nil
}

// conversation is an id that holds both users' ids, so that nothing is looked up.
func conversation(a, b uint64) uint64 { return min(a, b)<<32 | max(a, b) }

func (s *Server) send(c *conn, request uint64, m *chatv1.Send, touched []*conn) ([]*conn, error) {
	if s.committer == nil {
		return append(touched, s.relay(c, request, m, c.next(m.GetConversationId()))...), nil
	}
	if len(m.GetClientMsgId()) != 16 {
		return touched, errProtocol
	}
	s.committer.add(&message{server: s, from: c, request: request, send: m})
	return touched, nil
}

// relay queues the acknowledgement and the event, and returns whose outboxes
// they are in.
func (s *Server) relay(c *conn, request uint64, m *chatv1.Send, seq uint64) []*conn {
	now := time.Now().UnixMilli()
	c.out.push(&chatv1.ServerFrame{RequestId: request, Body: &chatv1.ServerFrame_Sent{Sent: &chatv1.Sent{
		ConversationId: m.GetConversationId(), Seq: seq, CreatedAtMs: now, Ordinal: seq,
	}}})
	id := m.GetConversationId()
	other := id >> 32
	if other == c.user {
		other = id & 0xffff_ffff
	}
	s.mu.RLock()
	peer := s.users[other]
	s.mu.RUnlock()
	if peer == nil {
		return []*conn{c}
	}
	peer.out.push(&chatv1.ServerFrame{Body: &chatv1.ServerFrame_Event{Event: &chatv1.Event{
		ConversationId: id, Seq: seq, SenderId: c.user, ClientMsgId: m.GetClientMsgId(),
		Kind: content.Text, Body: m.GetBody(), CreatedAtMs: now, Ordinal: seq,
	}}})
	return []*conn{c, peer}
}
