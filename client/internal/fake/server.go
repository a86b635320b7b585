package fake

import (
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"

	"github.com/msrchat/msrchat/shared/frame"
	"github.com/msrchat/msrchat/shared/text"
)

// Fate is what happens to a Send.
type Fate int

// The fates.
const (
	Answer    Fate = iota // as it should be
	CutBefore             // the connection breaks before the append
	CutAfter              // it breaks after the append, before the answer
	CutInside             // it breaks in the middle of the answer
	Swallow               // appended, never answered
)

// Faults are what a server does wrong. Nil functions do nothing wrong. They are
// called from several goroutines.
type Faults struct {
	// Hello may refuse a connection.
	Hello func(h *chatv1.Hello) *chatv1.Goodbye
	// Send decides on a Send; an error is answered as a Failure, unappended.
	Send func(s *chatv1.Send) (Fate, error)
	// Push returns the events to push in place of one.
	Push func(ev *chatv1.Event) []*chatv1.Event
	// NoHeads leaves out the heads after Welcome.
	NoHeads bool
	// Open may refuse an OpenDirect.
	Open func(name string) error
	// Own may refuse a SetOwnState.
	Own func(s *chatv1.SetOwnState) error
	// Frame may replace any answer or push; nil drops it.
	Frame func(f *chatv1.ServerFrame) *chatv1.ServerFrame
}

// Server is a chat server on a port of 127.0.0.1.
type Server struct {
	Instance string
	// Revision, Heartbeat, MaxPage and MaxUnacknowledged go into Welcome; set
	// before the first connection.
	Revision          uint32
	Heartbeat         time.Duration
	MaxPage           int
	MaxUnacknowledged uint32
	Alternates        []*chatv1.Endpoint
	// MaxOwnBytes bounds the drafts in an answer to ReadOwnStates.
	MaxOwnBytes int

	log      *Log
	listener net.Listener
	wg       sync.WaitGroup

	// joining is held for reading from a Welcome until its connection is listed:
	// who sees a client online also reaches it.
	joining sync.RWMutex

	mu      sync.Mutex
	faults  Faults              // under mu
	conns   map[*serverConn]any // under mu
	hellos  []*chatv1.Hello     // under mu
	pings   int                 // under mu
	most    int                 // the most unanswered sends on a connection; under mu
	unknown int                 // requests that a server of its revision does not know; under mu
	closed  bool                // under mu
	silence bool                // under mu
}

type serverConn struct {
	conn    net.Conn
	user    *user
	leaving atomic.Bool // its requests are not read any more
	dropped atomic.Bool // something was not written in a silence

	// held are the lanes in which a message was refused for a while: until it
	// comes again, later ones are refused too, so that those which were sent
	// without knowing do not overtake it. Owned by the connection's goroutine.
	held map[uint64]heldLane

	mu      sync.Mutex
	waiting int // sends read, not answered; under mu
}

type heldLane struct {
	id  string
	err error
}

// NewServer starts a server. It ends with the test.
func NewServer(t testing.TB, l *Log, instance string) *Server {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{
		Instance: instance, Revision: 1, Heartbeat: 20 * time.Second, MaxPage: 50, MaxUnacknowledged: 32,
		MaxOwnBytes: 256 << 10,
		log:         l, listener: listener, conns: map[*serverConn]any{},
	}
	l.mu.Lock()
	l.servers = append(l.servers, s)
	l.mu.Unlock()
	s.wg.Go(s.accept)
	t.Cleanup(s.Kill)
	return s
}

// Endpoint is where the server is.
func (s *Server) Endpoint() *chatv1.Endpoint {
	return &chatv1.Endpoint{Instance: s.Instance, Address: s.listener.Addr().String()}
}

// Do changes the server's faults.
func (s *Server) Do(change func(f *Faults)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.faults)
}

func (s *Server) now() Faults {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.faults
}

// Silence makes the server read on but write nothing more, or ends that.
func (s *Server) Silence(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.silence = on
}

// Kill ends the server at once, as kill -9 does.
func (s *Server) Kill() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	_ = s.listener.Close()
	s.Cut()
	s.wg.Wait()
}

// Cut breaks all connections.
func (s *Server) Cut() {
	for _, c := range s.connections() {
		_ = c.conn.Close()
	}
}

// Goodbye sends a Goodbye on all connections and ends them. It closes one
// direction only: a close with unread requests would reset the connection, and
// the Goodbye could be lost.
func (s *Server) Goodbye(g *chatv1.Goodbye) {
	for _, c := range s.connections() {
		s.write(c, &chatv1.ServerFrame{Body: &chatv1.ServerFrame_Goodbye{Goodbye: g}})
		c.leaving.Store(true)
		_ = c.conn.(*net.TCPConn).CloseWrite()
	}
}

// Push sends a frame on all connections.
func (s *Server) Push(f *chatv1.ServerFrame) {
	for _, c := range s.connections() {
		s.write(c, f)
	}
}

// Repair pushes every user's heads, as a server does within a heartbeat.
func (s *Server) Repair() {
	for _, c := range s.connections() {
		s.pushHeads(c)
	}
}

// Connections is how many clients are connected.
func (s *Server) Connections() int { return len(s.connections()) }

// Hellos returns every Hello that came.
func (s *Server) Hellos() []*chatv1.Hello {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.hellos)
}

// Pings is how many came.
func (s *Server) Pings() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pings
}

// Unknown is how many requests came that a server of this revision does not know.
func (s *Server) Unknown() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unknown
}

// MostUnanswered is the greatest number of sends that waited on one connection.
func (s *Server) MostUnanswered() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.most
}

func (s *Server) connections() []*serverConn {
	s.joining.Lock()
	defer s.joining.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*serverConn
	for c := range s.conns {
		out = append(out, c)
	}
	return out
}

func (s *Server) accept() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.wg.Go(func() { s.serve(&serverConn{conn: conn, held: map[uint64]heldLane{}}) })
	}
}

func (s *Server) serve(c *serverConn) {
	defer c.conn.Close()
	var first chatv1.ClientFrame
	buf, err := frame.Read(c.conn, 1<<20, nil, &first)
	if err != nil {
		return
	}
	if !s.welcome(c, &first) {
		return
	}
	defer func() {
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
	}()
	for {
		f := &chatv1.ClientFrame{}
		if buf, err = frame.Read(c.conn, 1<<20, buf, f); err != nil {
			return
		}
		if !c.leaving.Load() && !s.request(c, f) {
			return
		}
	}
}

func (s *Server) welcome(c *serverConn, f *chatv1.ClientFrame) bool {
	hello := f.GetHello()
	s.log.mu.Lock()
	c.user = s.log.byToken(hello.GetToken())
	epoch := s.log.epoch
	s.log.mu.Unlock()
	s.mu.Lock()
	s.hellos = append(s.hellos, hello)
	s.mu.Unlock()
	var bye *chatv1.Goodbye
	if refuse := s.now().Hello; refuse != nil {
		bye = refuse(hello)
	}
	if c.user == nil && bye == nil {
		bye = &chatv1.Goodbye{Code: chatv1.GoodbyeCode_GOODBYE_CODE_UNAUTHENTICATED, Text: "unknown token"}
	}
	if bye != nil {
		s.write(c, &chatv1.ServerFrame{RequestId: f.GetRequestId(), Body: &chatv1.ServerFrame_Goodbye{Goodbye: bye}})
		return false
	}
	s.joining.RLock()
	s.write(c, &chatv1.ServerFrame{
		RequestId: f.GetRequestId(),
		Body: &chatv1.ServerFrame_Welcome{Welcome: &chatv1.Welcome{
			UserId: c.user.id, UserName: c.user.name, Instance: s.Instance, Release: "test",
			HeartbeatMs: uint32(s.Heartbeat / time.Millisecond), LogEpoch: epoch, Alternates: s.Alternates,
			Revision: s.Revision,
			Limits: &chatv1.Limits{
				MaxFrameBytes: 1 << 20, MaxTextRunes: text.MaxMessageRunes, MaxTextBytes: text.MaxMessageBytes,
				MaxPage: uint32(s.MaxPage), MaxUnacknowledged: s.MaxUnacknowledged,
			},
		}},
	})
	s.mu.Lock()
	s.conns[c] = nil
	closed := s.closed
	s.mu.Unlock()
	s.joining.RUnlock()
	if !s.now().NoHeads {
		s.pushHeads(c)
	}
	return !closed
}

// pushHeads sends the heads two to a frame.
func (s *Server) pushHeads(c *serverConn) {
	s.log.mu.Lock()
	heads := s.log.heads(c.user)
	s.log.mu.Unlock()
	for part := range slices.Chunk(heads, 2) {
		s.write(c, &chatv1.ServerFrame{Body: &chatv1.ServerFrame_Heads{Heads: &chatv1.Heads{Heads: part}}})
	}
}

// push sends an event to the connected members.
func (s *Server) push(conv *conversation, ev *chatv1.Event) {
	events := []*chatv1.Event{ev}
	if change := s.now().Push; change != nil {
		events = change(ev)
	}
	for _, c := range s.connections() {
		for _, e := range events {
			if conv.has(c.user) {
				s.write(c, &chatv1.ServerFrame{Body: &chatv1.ServerFrame_Event{Event: e}})
			}
		}
	}
}

// write sends a frame, or cuts the connection where it does not go.
func (s *Server) write(c *serverConn, f *chatv1.ServerFrame) {
	if change := s.now().Frame; change != nil {
		if f = change(f); f == nil {
			return
		}
	}
	if s.Revision == 0 {
		f = older(f)
	}
	s.mu.Lock()
	silence := s.silence
	s.mu.Unlock()
	if silence {
		c.dropped.Store(true)
		return
	}
	if c.dropped.Load() { // no connection loses a part and goes on
		_ = c.conn.Close()
		return
	}
	wire, err := frame.Append(nil, f)
	if err != nil {
		panic(err)
	}
	c.raw(wire)
}

func (c *serverConn) raw(wire []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.conn.SetWriteDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.conn.Write(wire); err != nil {
		_ = c.conn.Close()
	}
}

// request answers one frame; false ends the connection.
func (s *Server) request(c *serverConn, f *chatv1.ClientFrame) bool {
	answer := &chatv1.ServerFrame{}
	switch body := f.GetBody().(type) {
	case *chatv1.ClientFrame_Ping:
		s.mu.Lock()
		s.pings++
		s.mu.Unlock()
		answer.Body = &chatv1.ServerFrame_Pong{Pong: &chatv1.Pong{}}
	case *chatv1.ClientFrame_Send:
		return s.send(c, f.GetRequestId(), body.Send)
	case *chatv1.ClientFrame_OpenDirect:
		answer = s.open(c, body.OpenDirect.GetPeerName())
	case *chatv1.ClientFrame_History:
		s.log.mu.Lock()
		page, err := s.log.history(c.user, body.History, s.MaxPage)
		s.log.mu.Unlock()
		answer.Body = &chatv1.ServerFrame_HistoryPage{HistoryPage: page}
		if err != nil {
			answer = failure(err)
		}
	case *chatv1.ClientFrame_ListConversations:
		s.log.mu.Lock()
		list := s.log.list(c.user, body.ListConversations, s.MaxPage)
		s.log.mu.Unlock()
		answer.Body = &chatv1.ServerFrame_ConversationList{ConversationList: list}
	case *chatv1.ClientFrame_SetOwnState:
		answer = s.setOwn(c, body.SetOwnState)
	case *chatv1.ClientFrame_ReadOwnStates:
		answer = s.readOwn(c, body.ReadOwnStates.GetConversationIds())
	default:
		return false
	}
	answer.RequestId = f.GetRequestId()
	s.write(c, answer)
	return true
}
