package fuzz

import (
	"context"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
)

// watch are the honest people beside the cases. Two write to each other and want to be
// read within a second; and for each person of the world somebody looks at everything
// that they can see.
type watch struct {
	run *run
	// writer writes to reader in the conversation to. lookers are the people of the world.
	writer, reader *honest
	to             uint64
	lookers        []*honest
	stop           context.CancelFunc
	done           sync.WaitGroup

	mu    sync.Mutex // owns the fields below
	sent  map[uint64]time.Time
	took  []time.Duration
	asked uint64
	seen  uint64 // the last event's number
}

const (
	// honestEvery is how often the honest write, lookEvery how often everything is looked
	// at. Each message costs the servers next to nothing.
	honestEvery = 250 * time.Millisecond
	lookEvery   = 3 * time.Second
	// honestLimit is how long a message may take once the cases are over.
	honestLimit = time.Second
)

func (r *run) watch(ctx context.Context) (*watch, error) {
	w := &watch{run: r, sent: make(map[uint64]time.Time)}
	names := [2]string{"h1." + newValues(r.cfg.Seed, 0, 0).word(), "h2." + newValues(r.cfg.Seed, 0, 0).word()}
	if err := w.connect(ctx, names); err != nil {
		w.close()
		return nil, err
	}
	life, stop := context.WithCancel(ctx)
	w.stop = stop
	w.done.Go(func() { w.talk(life) })
	w.done.Go(func() { w.look(life) })
	return w, nil
}

func (w *watch) connect(ctx context.Context, names [2]string) error {
	var two [2]*person
	for i, name := range names {
		p, err := w.run.register(ctx, name)
		if err != nil {
			return err
		}
		two[i] = p
	}
	var err error
	if w.writer, err = w.run.honest(ctx, two[0], 0, nil); err != nil {
		return err
	}
	if w.reader, err = w.run.honest(ctx, two[1], 1, w.read); err != nil {
		return err
	}
	f, err := w.writer.ask(ctx, &chatv1.ClientFrame{Body: &chatv1.ClientFrame_OpenDirect{
		OpenDirect: &chatv1.OpenDirect{PeerName: names[1]},
	}})
	if err != nil {
		return err
	}
	w.to = f.GetConversation().GetId()
	return w.lookAs(ctx)
}

// lookAs connects the people of the world.
func (w *watch) lookAs(ctx context.Context) error {
	for i, p := range w.run.world.people {
		h, err := w.run.honest(ctx, p, i, nil)
		if err != nil {
			return err
		}
		w.lookers = append(w.lookers, h)
	}
	return nil
}

// say sends an honest message.
func (w *watch) say() {
	w.mu.Lock()
	w.asked++
	n := w.asked
	w.sent[n] = time.Now()
	w.mu.Unlock()
	w.send(n)
}

func (w *watch) send(n uint64) {
	id := binary.BigEndian.AppendUint64([]byte("honest--"), n)
	f := &filler{}
	w.writer.conn.write(f.encode(&chatv1.ClientFrame{RequestId: n, Body: &chatv1.ClientFrame_Send{
		Send: &chatv1.Send{ConversationId: w.to, ClientMsgId: id, Body: []byte("hello"), Kind: 1},
	}}))
}

// follow is what every client does that was asked to go to another server: who reads pulls
// what came meanwhile, who writes says again what may not have arrived.
func (w *watch) follow(ctx context.Context) {
	moved, err := w.reader.here(ctx)
	for more := moved && err == nil; more; {
		var f *chatv1.ServerFrame
		w.mu.Lock()
		after := w.seen
		w.mu.Unlock()
		f, err = w.reader.ask(ctx, &chatv1.ClientFrame{Body: &chatv1.ClientFrame_History{
			History: &chatv1.History{ConversationId: w.to, After: after},
		}})
		for _, e := range f.GetHistoryPage().GetEvents() {
			w.note(e)
		}
		more = len(f.GetHistoryPage().GetEvents()) > 0
	}
	if w.failed(ctx, "follow", err) {
		return
	}
	moved, err = w.writer.here(ctx)
	if w.failed(ctx, "follow", err) || !moved {
		return
	}
	w.mu.Lock()
	unread := slices.Sorted(maps.Keys(w.sent))
	w.mu.Unlock()
	for _, n := range unread {
		w.send(n)
	}
}

// read notes when an honest message arrived.
func (w *watch) read(f *chatv1.ServerFrame) {
	if e := f.GetEvent(); e != nil {
		w.note(e)
	}
}

func (w *watch) note(e *chatv1.Event) {
	if len(e.GetClientMsgId()) != 16 {
		return
	}
	n := binary.BigEndian.Uint64(e.GetClientMsgId()[8:])
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = max(w.seen, e.GetSeq())
	if at, ok := w.sent[n]; ok {
		delete(w.sent, n)
		w.took = append(w.took, time.Since(at))
	}
}

func (w *watch) talk(ctx context.Context) {
	for ctx.Err() == nil {
		w.follow(ctx)
		w.say()
		pause(ctx, honestEvery)
	}
}

// look reads lists, pages and states of everybody, all the time. Every frame is judged
// where it arrives.
func (w *watch) look(ctx context.Context) {
	for ctx.Err() == nil {
		for i := range people {
			c := w.lookers[i]
			for after, more := uint64(0), true; more && ctx.Err() == nil; {
				f, err := c.ask(ctx, &chatv1.ClientFrame{Body: &chatv1.ClientFrame_ListConversations{
					ListConversations: &chatv1.ListConversations{AfterId: after, Limit: 256},
				}})
				if w.failed(ctx, "list_conversations", err) {
					return
				}
				list := f.GetConversationList().GetConversations()
				if more = f.GetConversationList().GetMore(); len(list) > 0 {
					after = list[len(list)-1].GetId()
				}
			}
			ids := w.run.world.of(i)
			_, err := c.ask(ctx, &chatv1.ClientFrame{Body: &chatv1.ClientFrame_ReadOwnStates{
				ReadOwnStates: &chatv1.ReadOwnStates{ConversationIds: ids},
			}})
			if w.failed(ctx, "read_own_states", err) {
				return
			}
		}
		w.pages(ctx)
		pause(ctx, lookEvery)
	}
}

// pages reads on in every log, and compares it with what was acknowledged.
func (w *watch) pages(ctx context.Context) {
	for _, id := range w.run.world.all() {
		pair := w.run.world.members[id]
		known := func(user uint64) bool {
			return user == w.run.world.people[pair[0]].id || user == w.run.world.people[pair[1]].id
		}
		for full := true; full && ctx.Err() == nil; {
			f, err := w.lookers[pair[0]].ask(ctx, &chatv1.ClientFrame{Body: &chatv1.ClientFrame_History{
				History: &chatv1.History{ConversationId: id, After: w.run.ledger.position(id)},
			}})
			if w.failed(ctx, "history", err) {
				return
			}
			page := f.GetHistoryPage()
			if err := w.run.ledger.check(page, known); err != nil {
				w.run.find(nil, ruleLog, "history", "%v", err)
				return
			}
			full = len(page.GetEvents()) > 0
		}
	}
}

func (w *watch) failed(ctx context.Context, where string, err error) bool {
	if err == nil || ctx.Err() != nil || errors.Is(err, context.Canceled) {
		return err != nil
	}
	w.run.find(nil, ruleHonest, where, "%v", err)
	return true
}

// after looks whether the honest are served as before, once the cases are over.
func (w *watch) after(ctx context.Context) {
	w.stop()
	w.done.Wait()
	w.mu.Lock()
	before := len(w.took)
	w.mu.Unlock()
	for range 11 {
		w.follow(ctx)
		w.say()
		pause(ctx, honestEvery/5)
	}
	for until := time.Now().Add(w.run.cfg.Patience); w.unread() > 0 && time.Now().Before(until); {
		w.follow(ctx)
		pause(ctx, honestEvery/5)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	after := slices.Clone(w.took[before:])
	w.took = w.took[:before]
	slices.Sort(after)
	switch {
	case ctx.Err() != nil:
	case len(w.sent) > 0:
		w.run.find(nil, ruleHonest, "send", "%d messages were not read within %v", len(w.sent), w.run.cfg.Patience)
	case after[len(after)/2] > honestLimit: // not the worst, which may be the machine's
		w.run.find(nil, ruleHonest, "send", "messages are read after %v", after[len(after)/2])
	}
}

func (w *watch) unread() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.sent)
}

// latencies are those of the honest while the cases went on, sorted.
func (w *watch) latencies() []time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	took := slices.Clone(w.took)
	slices.Sort(took)
	return took
}

func (w *watch) close() {
	if w.stop != nil {
		w.stop()
		w.done.Wait()
	}
	w.writer.close()
	w.reader.close()
	for _, h := range w.lookers {
		h.close()
	}
}

// verify compares the rest of every log with what was acknowledged.
func (r *run) verify(ctx context.Context) {
	w := &watch{run: r}
	defer w.close()
	if err := w.lookAs(ctx); err != nil {
		r.find(nil, ruleHonest, "connect", "%v", err)
		return
	}
	w.pages(ctx)
	// What was acknowledged after its page was read is looked up by itself.
	for _, id := range r.world.all() {
		for _, seq := range r.ledger.left(id) {
			f, err := w.lookers[r.world.members[id][0]].ask(ctx,
				&chatv1.ClientFrame{Body: &chatv1.ClientFrame_History{
					History: &chatv1.History{ConversationId: id, After: seq - 1, Limit: 1},
				}})
			if w.failed(ctx, "history", err) {
				return
			}
			if err := r.ledger.one(id, seq, f.GetHistoryPage().GetEvents()); err != nil {
				r.find(nil, ruleLog, "history", "%v", err)
			}
		}
	}
}
