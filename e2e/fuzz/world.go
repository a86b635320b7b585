package fuzz

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
)

// people is how many there are whom cases speak for, and who see what those do.
const people = 6

// world are the people whom all cases know, and their conversations: everybody with
// everybody. It does not change after the beginning.
type world struct {
	people []*person
	// conversations are by the two people's places, the smaller first.
	conversations map[[2]int]uint64
	members       map[uint64][2]int
}

// newWorld registers the people and opens their conversations, one after the other: so
// a new system gives them the same numbers.
func (r *run) newWorld(ctx context.Context) (*world, error) {
	w := &world{conversations: make(map[[2]int]uint64), members: make(map[uint64][2]int)}
	for i := range people {
		p, err := r.register(ctx, fmt.Sprintf("p%d.%s", i, strconv.FormatUint(r.cfg.Seed, 36)))
		if err != nil {
			return nil, fmt.Errorf("register: %w", err)
		}
		w.people = append(w.people, p)
	}
	for i := range people {
		c, err := r.connect(ctx, w.people[i], i)
		if err != nil {
			return nil, err
		}
		for j := i + 1; j < people; j++ {
			f, err := c.ask(ctx, &chatv1.ClientFrame{Body: &chatv1.ClientFrame_OpenDirect{
				OpenDirect: &chatv1.OpenDirect{PeerName: w.people[j].name},
			}})
			if err != nil {
				c.close()
				return nil, fmt.Errorf("open a conversation: %w", err)
			}
			id := f.GetConversation().GetId()
			w.conversations[[2]int{i, j}], w.members[id] = id, [2]int{i, j}
		}
		c.close()
	}
	return w, nil
}

// of lists the conversations of a person, in order.
func (w *world) of(at int) (ids []uint64) {
	for pair, id := range w.conversations {
		if pair[0] == at || pair[1] == at {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// all lists every conversation.
func (w *world) all() []uint64 { return slices.Sorted(maps.Keys(w.members)) }

// last is the newest of the conversations.
func (w *world) last() uint64 { return slices.Max(w.all()) }

// secrets are everybody's tokens.
func (w *world) secrets() map[string]string {
	out := make(map[string]string)
	for i, p := range w.people {
		out[p.token] = strconv.Itoa(i)
	}
	return out
}

// register makes an account as people do: by a code from a mail.
func (r *run) register(ctx context.Context, name string) (*person, error) {
	p := &person{name: name, email: name + "@example.org", password: "correct horse " + name, device: "own"}
	if _, err := r.post(ctx, "/v1/codes", map[string]string{"email": p.email, "purpose": "register"}); err != nil {
		return nil, err
	}
	code := ""
	for until := time.Now().Add(r.cfg.Patience); code == ""; pause(ctx, 5*time.Millisecond) {
		if text, ok := r.cfg.Target.Mail(p.email); ok {
			code = digits.FindString(text)
		}
		if time.Now().After(until) || ctx.Err() != nil {
			return nil, fmt.Errorf("no code came to %s", p.email)
		}
	}
	body, err := r.post(ctx, "/v1/accounts?later=true", map[string]string{
		"email": p.email, "name": name, "password": p.password, "code": code, "device": p.device,
	})
	if err != nil {
		return nil, err
	}
	var reply struct {
		Token string
		User  struct{ ID string }
	}
	if err := json.Unmarshal(body, &reply); err != nil {
		return nil, err
	}
	p.token = reply.Token
	p.id, err = strconv.ParseUint(reply.User.ID, 10, 64)
	return p, err
}

// post is an honest request; one that the gate has no room for comes again.
func (r *run) post(ctx context.Context, path string, body any) ([]byte, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	for until := time.Now().Add(r.cfg.Patience); ; {
		status, answer, err := r.send(ctx, http.MethodPost, path, "", text)
		switch {
		case err != nil:
			return nil, err
		case status < 300:
			return answer, nil
		case status != http.StatusServiceUnavailable || time.Now().After(until):
			return nil, fmt.Errorf("%s: %d %s", path, status, answer)
		}
		pause(ctx, time.Second)
	}
}

func (r *run) send(ctx context.Context, method, path, token string, body []byte) (int, []byte, error) {
	q, err := http.NewRequestWithContext(ctx, method, "http://"+r.cfg.Target.Gate+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	q.Header.Set("Content-Type", "application/json")
	// A client of its own, for the limits.
	q.Header.Set("X-Forwarded-For", values{rand.New(rand.NewPCG(rand.Uint64(),
		0))}.address()) //nolint:gosec // no secret
	if token != "" {
		q.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := fetcher.Do(q)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	_, err = b.ReadFrom(resp.Body)
	return resp.StatusCode, b.Bytes(), err
}

// alive says whether a person's session has not ended.
func (r *run) alive(ctx context.Context, p *person) bool {
	status, _, err := r.send(ctx, http.MethodGet, "/v1/me", p.token, nil)
	return err == nil && status == http.StatusOK
}

// ledger has what was acknowledged and not yet found in a page. The mutex owns it.
type ledger struct {
	mu sync.Mutex
	// sent is by conversation and number, read how far the pages were verified.
	sent map[uint64]map[uint64]acknowledged
	read map[uint64]uint64
}

// acknowledged is a message whose sender was told its number.
type acknowledged struct {
	id     string
	body   []byte
	sender uint64
}

// add notes what was acknowledged.
func (l *ledger) add(conversation, seq uint64, a acknowledged) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sent == nil {
		l.sent, l.read = make(map[uint64]map[uint64]acknowledged), make(map[uint64]uint64)
	}
	if l.sent[conversation] == nil {
		l.sent[conversation] = make(map[uint64]acknowledged)
	}
	l.sent[conversation][seq] = a
}

// check compares a page with what was acknowledged.
func (l *ledger) check(page *chatv1.HistoryPage, known func(user uint64) bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	id := page.GetConversationId()
	for _, e := range page.GetEvents() {
		if l.read == nil {
			l.read = make(map[uint64]uint64)
		}
		if e.GetSeq() != l.read[id]+1 {
			return fmt.Errorf("after number %d of conversation %d comes %d", l.read[id], id, e.GetSeq())
		}
		l.read[id] = e.GetSeq()
		if !known(e.GetSenderId()) {
			return fmt.Errorf("number %d of conversation %d is of user %d, who is no member", e.GetSeq(), id,
				e.GetSenderId())
		}
		a, ok := l.sent[id][e.GetSeq()]
		if !ok {
			continue // its answer did not come, or has not come yet
		}
		delete(l.sent[id], e.GetSeq())
		if !a.is(e) {
			return fmt.Errorf("number %d of conversation %d is another message than was acknowledged", e.GetSeq(), id)
		}
	}
	return nil
}

// position is how far a conversation was verified.
func (l *ledger) position(conversation uint64) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.read[conversation]
}

// left lists the numbers that were acknowledged and not found in a page yet.
func (l *ledger) left(conversation uint64) []uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Sorted(maps.Keys(l.sent[conversation]))
}

// one compares the event of a number with what was acknowledged.
func (l *ledger) one(conversation, seq uint64, page []*chatv1.Event) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.sent[conversation][seq]
	if len(page) != 1 || page[0].GetSeq() != seq || !a.is(page[0]) {
		return fmt.Errorf("number %d of conversation %d was acknowledged and is not in the page", seq, conversation)
	}
	return nil
}

// is says that an event is what was acknowledged.
func (a acknowledged) is(e *chatv1.Event) bool {
	return a.id == string(e.GetClientMsgId()) && bytes.Equal(a.body, e.GetBody()) && a.sender == e.GetSenderId()
}
