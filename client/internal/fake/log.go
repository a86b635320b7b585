// Package fake is a chat service in one process for tests of the client: a log
// in memory, servers that speak the real frames over TCP and do what a test
// tells them to do wrong, and a gate over HTTP.
package fake

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"

	"github.com/msrchat/msrchat/shared/content"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/text"
)

// Log is what the servers share, in place of the database. mu guards all of it.
type Log struct {
	mu       sync.Mutex
	epoch    uint64
	users    []*user
	convs    []*conversation
	servers  []*Server
	clock    int64
	lastConv uint64
}

type user struct {
	id               uint64
	name, key        string
	email, password  string
	tokens           [][]byte
	sessionsOfDevice map[string][]byte
}

type conversation struct {
	id     uint64
	people [2]*user
	events []*chatv1.Event
	own    [2]*chatv1.OwnState // of people
}

// Uncounted is a made-up kind of content, with any body, that is no unread message.
const Uncounted = 99

// NewLog returns an empty log. The ids begin at odd values, so that a mix-up
// shows.
func NewLog() *Log { return &Log{epoch: 1, clock: 1_790_000_000_000, lastConv: 40} }

// AddUser makes an account and returns its id and a session token.
func (l *Log) AddUser(name string) (id uint64, token []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	u, err := l.addUser(name)
	if err != nil {
		panic(err)
	}
	return u.id, u.newToken("test")
}

func (l *Log) addUser(name string) (*user, error) {
	display, key, err := text.Name(name)
	if err != nil {
		return nil, err
	}
	if l.byKey(key) != nil {
		return nil, errs.New(errs.CodeConflict, "the name is taken").In("name")
	}
	u := &user{id: uint64(101 + len(l.users)), name: display, key: key, sessionsOfDevice: map[string][]byte{}}
	l.users = append(l.users, u)
	return u, nil
}

func (u *user) newToken(device string) []byte {
	token := make([]byte, 32)
	_, _ = rand.Read(token) // never fails
	if old := u.sessionsOfDevice[device]; old != nil && device != "test" {
		u.revoke(old)
	}
	u.sessionsOfDevice[device] = token
	u.tokens = append(u.tokens, token)
	return token
}

func (u *user) revoke(token []byte) {
	u.tokens = slices.DeleteFunc(u.tokens, func(t []byte) bool { return bytes.Equal(t, token) })
}

func (l *Log) byKey(key string) *user {
	for _, u := range l.users {
		if u.key == key {
			return u
		}
	}
	return nil
}

func (l *Log) byToken(token []byte) *user {
	for _, u := range l.users {
		for _, t := range u.tokens {
			if bytes.Equal(t, token) {
				return u
			}
		}
	}
	return nil
}

// Revoke ends all sessions of a user.
func (l *Log) Revoke(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.byKey(name).tokens = nil
}

// Open returns the direct conversation of two users.
func (l *Log) Open(a, b string) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open(l.byKey(a), l.byKey(b)).id
}

func (l *Log) open(a, b *user) *conversation {
	for _, c := range l.convs {
		if c.people == [2]*user{a, b} || c.people == [2]*user{b, a} {
			return c
		}
	}
	l.lastConv += 3
	c := &conversation{id: l.lastConv, people: [2]*user{a, b}}
	l.convs = append(l.convs, c)
	return c
}

func (l *Log) conv(id uint64) *conversation {
	for _, c := range l.convs {
		if c.id == id {
			return c
		}
	}
	return nil
}

func (c *conversation) has(u *user) bool { return c.people[0] == u || c.people[1] == u }

func (c *conversation) peer(u *user) *user {
	if c.people[0] == u {
		return c.people[1]
	}
	return c.people[0]
}

func (c *conversation) describe(u *user) *chatv1.Conversation {
	p := c.peer(u)
	return &chatv1.Conversation{
		Id: c.id, Head: uint64(len(c.events)), Ordinal: c.ordinal(), Peer: &chatv1.User{Id: p.id, Name: p.name},
	}
}

// ordinal is the last event's.
func (c *conversation) ordinal() uint64 {
	if n := len(c.events); n > 0 {
		return c.events[n-1].GetOrdinal()
	}
	return 0
}

// add appends an event.
func (c *conversation) add(from uint64, id []byte, kind uint32, body []byte, at int64) *chatv1.Event {
	ev := &chatv1.Event{
		ConversationId: c.id, Seq: uint64(len(c.events) + 1), Ordinal: c.ordinal(), SenderId: from, ClientMsgId: id,
		Kind: kind, Body: body, CreatedAtMs: at,
	}
	if kind != Uncounted {
		ev.Ordinal++
	}
	c.events = append(c.events, ev)
	return ev
}

// append logs a message once and returns its event.
func (l *Log) append(u *user, send *chatv1.Send) (ev *chatv1.Event, existing bool, err error) {
	c := l.conv(send.GetConversationId())
	if c == nil || !c.has(u) {
		return nil, false, errs.New(errs.CodeForbidden, "this is not your conversation")
	}
	kind := send.GetKind()
	if kind == 0 {
		kind = content.Text
	}
	if kind != Uncounted {
		if err := text.Message(string(send.GetBody())); err != nil {
			return nil, false, err
		}
	}
	for _, e := range c.events {
		if e.GetSenderId() == u.id && bytes.Equal(e.GetClientMsgId(), send.GetClientMsgId()) {
			if !bytes.Equal(e.GetBody(), send.GetBody()) {
				return nil, false, errs.New(errs.CodeConflict, "another text has this id")
			}
			return e, true, nil
		}
	}
	l.clock++
	return c.add(u.id, send.GetClientMsgId(), kind, send.GetBody(), l.clock), false, nil
}

// Say logs a message as if another client had sent it, and has it pushed.
func (l *Log) Say(conv uint64, from, message string) uint64 {
	return l.Do(conv, from, content.Text, message)
}

// Do is Say for any kind of content.
func (l *Log) Do(conv uint64, from string, kind uint32, body string) uint64 {
	l.mu.Lock()
	id := make([]byte, 16)
	_, _ = rand.Read(id)
	send := &chatv1.Send{ConversationId: conv, ClientMsgId: id, Kind: kind, Body: []byte(body)}
	ev, _, err := l.append(l.byKey(from), send)
	l.mu.Unlock()
	if err != nil {
		panic(err)
	}
	l.push(ev)
	return ev.GetSeq()
}

// push hands an event to the servers.
func (l *Log) push(ev *chatv1.Event) {
	l.mu.Lock()
	servers := slices.Clone(l.servers)
	c := l.conv(ev.GetConversationId())
	l.mu.Unlock()
	for _, s := range servers {
		s.push(c, ev)
	}
}

// Texts returns a conversation's texts in order.
func (l *Log) Texts(conv uint64) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	if c := l.conv(conv); c != nil {
		for _, e := range c.events {
			out = append(out, string(e.GetBody()))
		}
	}
	return out
}

// Head is the last event's number and ordinal.
func (l *Log) Head(conv uint64) (seq, ordinal uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.conv(conv)
	return uint64(len(c.events)), c.ordinal()
}

// Restore plays a restored backup: it drops the events after keep and begins a
// new epoch.
func (l *Log) Restore(conv uint64, keep int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.conv(conv)
	c.events = c.events[:keep:keep]
	c.own = [2]*chatv1.OwnState{}
	l.epoch++
}

// Rename changes the id of a conversation, as after a restore that lost it.
func (l *Log) Rename(conv, id uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.conv(conv)
	c.id = id
	for i, ev := range c.events {
		moved := proto.Clone(ev).(*chatv1.Event)
		moved.ConversationId = id
		c.events[i] = moved
	}
	slices.SortFunc(l.convs, func(a, b *conversation) int { return cmp.Compare(a.id, b.id) }) // they are listed by id
}

func (l *Log) history(u *user, q *chatv1.History, maxPage int) (*chatv1.HistoryPage, error) {
	c := l.conv(q.GetConversationId())
	if c == nil || !c.has(u) {
		return nil, errs.New(errs.CodeForbidden, "this is not your conversation")
	}
	n := uint64(len(c.events))
	limit := uint64(maxPage)
	if q.GetLimit() > 0 {
		limit = min(limit, uint64(q.GetLimit()))
	}
	from, to := min(q.GetAfter(), n), n
	if q.GetBefore() > 0 {
		to = min(q.GetBefore()-1, n)
		from = to - min(limit, to)
	}
	to = min(to, from+limit)
	return &chatv1.HistoryPage{ConversationId: c.id, Events: c.events[from:to:to], Head: n}, nil
}

func (l *Log) list(u *user, q *chatv1.ListConversations, maxPage int) *chatv1.ConversationList {
	var out chatv1.ConversationList
	limit := min(max(int(q.GetLimit()), 1), maxPage)
	for _, c := range l.convs { // by id
		if !c.has(u) || c.id <= q.GetAfterId() {
			continue
		}
		if len(out.Conversations) == limit {
			out.More = true
			break
		}
		out.Conversations = append(out.Conversations, c.describe(u))
	}
	return &out
}

func (l *Log) heads(u *user) []*chatv1.Head {
	var out []*chatv1.Head
	for _, c := range l.convs {
		if h := c.head(u); c.has(u) && (h.GetSeq() > 0 || h.GetOwnState() > 0) {
			out = append(out, h)
		}
	}
	return out
}

// failure is the frame for an error.
func failure(err error) *chatv1.ServerFrame {
	e := errs.From(err)
	return &chatv1.ServerFrame{Body: &chatv1.ServerFrame_Failure{Failure: &chatv1.Failure{
		Code: string(e.Code), Text: e.Message, Field: e.Field,
		RetryAfterMs: uint32(e.RetryAfter / time.Millisecond),
	}}}
}

// Unavailable is a refusal that passes.
func Unavailable(after time.Duration) error {
	return errs.New(errs.CodeUnavailable, "the database is away").Retry(after)
}

func (u *user) String() string { return fmt.Sprintf("%s (%d)", u.name, u.id) }

// Inject logs a message that no server would have taken.
func (l *Log) Inject(conv uint64, from, message string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.conv(conv)
	l.clock++
	c.add(l.byKey(from).id, make([]byte, 16), content.Text, []byte(message), l.clock)
}

// Tamper gives a user a name that no gate would have taken.
func (l *Log) Tamper(key, name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.byKey(key).name = name
}
