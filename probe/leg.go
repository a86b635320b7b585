package probe

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/errs"
)

const (
	// burst is how many messages a thread sends before it waits for their
	// acknowledgements: enough to see one overtake another.
	burst = 4
	// reopenFor is how long a lost connection is tried again before the leg gives
	// up: a restarted chat server is back in two seconds.
	reopenFor = 8 * time.Second
	// offerFor is how long refused messages are offered again.
	offerFor = 15 * time.Second
	// maxOpen bounds the messages that wait for their verdict, a few megabytes.
	maxOpen = 10_000
	// legLimit bounds a leg beyond the time that its pace asks for.
	legLimit = 3 * time.Minute
)

// pace spreads the messages of all threads evenly. Its mutex owns next.
type pace struct {
	every time.Duration
	mu    sync.Mutex
	next  time.Time
}

// wait returns when n more messages may be sent; false means that ctx ended.
func (p *pace) wait(ctx context.Context, n int) bool {
	p.mu.Lock()
	now := time.Now()
	if p.next.Before(now) {
		p.next = now
	}
	at := p.next
	p.next = at.Add(time.Duration(n) * p.every)
	p.mu.Unlock()
	return pause(ctx, time.Until(at))
}

// leg is one stretch of probing: those who are here, on the own chat server,
// write with those who are there, on another one (or the same).
type leg struct {
	probe *Probe
	ends  map[uint64]*end // by user
	pace  *pace
	left  atomic.Int64 // messages still to send
}

// end is one person's place in a leg: a line that is opened when it is needed,
// and again when it was lost. The mutex owns the fields below it and is held
// while a line is opened, so that one thread does it for all.
type end struct {
	leg    *leg
	who    *person
	server server

	mu   sync.Mutex
	line *line
	gone error // why it is not tried any more
}

// get returns the line.
func (e *end) get(ctx context.Context) (*line, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.gone != nil {
		return nil, e.gone
	}
	if e.line != nil && e.line.alive() {
		return e.line, nil
	}
	for deadline := time.Now().Add(reopenFor); ; {
		l, err := dial(ctx, e.server, e.who, e.leg.probe)
		if err == nil {
			e.line = l
			e.leg.probe.checkEpoch(l)
			return l, nil
		}
		if e.leg.probe.final(ctx, e.who, err) || time.Now().After(deadline) || !pause(ctx, 200*time.Millisecond) {
			e.gone = err
			return nil, err
		}
	}
}

// current is the line as it is, nil when there is none.
func (e *end) current() *line {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.line != nil && e.line.alive() {
		return e.line
	}
	return nil
}

func (e *end) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.line != nil {
		e.line.close()
	}
	e.gone = errEnded
}

// final says whether connecting again cannot help within this leg. A token that
// is not accepted any more is replaced for the next one.
func (p *Probe) final(ctx context.Context, who *person, err error) bool {
	var last goodbye
	if !errors.As(err, &last) {
		return false
	}
	if last.GetCode() == chatv1.GoodbyeCode_GOODBYE_CODE_UNAUTHENTICATED {
		if err := p.people.logIn(ctx, who); err != nil {
			p.trouble(fmt.Errorf("log %s in: %w", who.name, err))
		}
	}
	return true
}

// event, heads and ended make the probe the listener of its lines.
func (p *Probe) event(l *line, e *chatv1.Event) { p.broken(p.book.shown(l, e)) }
func (p *Probe) heads(l *line, h *chatv1.Heads) { p.book.told(l, h) }
func (p *Probe) ended(l *line)                  { p.book.ended(l) }

// checkEpoch forgets everything when the logs lost a tail by a restore: what was
// acknowledged before cannot be judged.
func (p *Probe) checkEpoch(l *line) {
	now := l.welcome.GetLogEpoch()
	if before := p.epoch.Swap(now); before != 0 && before != now {
		p.log.Warn("the log epoch changed: what was acknowledged before is not judged", "epoch", now, "messages", p.book.clear())
	}
}

// run probes with one server: n messages in the talks of those chosen. It
// returns how many were verified. An error is trouble, nothing worse.
func (p *Probe) run(ctx context.Context, away server, n int, every time.Duration, here, there []int) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, legLimit+time.Duration(n)*every)
	defer cancel()
	l := &leg{probe: p, ends: map[uint64]*end{}, pace: &pace{every: every}}
	l.left.Store(int64(n))
	home := server{instance: p.cfg.Instance, release: p.cfg.Release, address: p.cfg.Home}
	for i := range side {
		l.ends[p.people.here[i].id] = &end{leg: l, who: p.people.here[i], server: home}
		l.ends[p.people.there[i].id] = &end{leg: l, who: p.people.there[i], server: away}
	}
	defer func() {
		for _, e := range l.ends {
			e.close()
		}
	}()
	var trouble error
	if p.book.size() < maxOpen { // else what is there is settled first
		trouble = l.exchange(ctx, here, there)
	}
	if trouble == nil {
		trouble = l.awaitTold(ctx)
	}
	verified, err := l.verify(ctx)
	return verified, errors.Join(trouble, err)
}

// exchange connects everybody, then has both sides of every talk write.
func (l *leg) exchange(ctx context.Context, here, there []int) error {
	people := l.probe.people
	for _, i := range here {
		if _, err := l.ends[people.here[i].id].get(ctx); err != nil {
			return err
		}
	}
	for _, j := range there {
		if _, err := l.ends[people.there[j].id].get(ctx); err != nil {
			return err
		}
	}
	var group sync.WaitGroup
	troubles := make(chan error, 2*side*side)
	for _, i := range here {
		for _, j := range there {
			a, b := l.ends[people.here[i].id], l.ends[people.there[j].id]
			for _, t := range []*thread{{l, people.talks[i][j], a, b, 0}, {l, people.talks[i][j], b, a, 0}} {
				group.Go(func() {
					if err := t.run(ctx); err != nil {
						troubles <- err
					}
				})
			}
		}
	}
	group.Wait()
	close(troubles)
	return <-troubles // one tells enough; nil when there is none
}

// thread writes one side of a talk. It belongs to one goroutine.
type thread struct {
	leg      *leg
	talk     uint64
	from, to *end
	last     uint64 // the highest number that was acknowledged
}

// run sends bursts while the leg has messages left.
func (t *thread) run(ctx context.Context) error {
	for {
		n := burst
		if left := t.leg.left.Add(-burst); left <= -burst {
			return nil
		} else if left < 0 {
			n += int(left)
		}
		if !t.leg.pace.wait(ctx, n) {
			return ctx.Err()
		}
		if err := t.write(ctx, n); err != nil {
			return err
		}
	}
}

// write sends n messages and returns when all are acknowledged. An error says
// that some were given up.
func (t *thread) write(ctx context.Context, n int) error {
	pending := make([]*message, n)
	for i := range pending {
		m := &message{talk: t.talk, sender: t.from.who.id, reader: t.to.who.id, via: t.from.server, to: t.to.server}
		rand.Read(m.id[:]) // never fails: see its documentation
		m.text = fmt.Sprintf("probe %x", m.id[:8])
		t.leg.probe.book.typed(m)
		pending[i] = m
	}
	before, all, clean := t.last, pending, true
	for deadline := time.Now().Add(offerFor); ; clean = false {
		var err error
		if pending, err = t.offer(ctx, pending); len(pending) == 0 {
			break
		}
		wait := 200 * time.Millisecond
		if e := (*errs.Error)(nil); errors.As(err, &e) {
			wait = max(wait, e.RetryAfter)
		}
		if time.Now().After(deadline) || !passing(err) || !pause(ctx, min(wait, 2*time.Second)) {
			for _, m := range pending {
				t.leg.probe.book.forget(m)
			}
			t.from.drop() // the server holds back what would overtake them
			return err
		}
	}
	t.leg.probe.broken(ordered(all, before, clean))
	return nil
}

// passing says that offering again may help.
func passing(err error) bool {
	var refusal *errs.Error
	if !errors.As(err, &refusal) {
		return true
	}
	return refusal.Code == errs.CodeUnavailable || refusal.Code == errs.CodeExhausted || refusal.Code == errs.CodeRateLimited
}

// offer sends messages in order, returns those that were not acknowledged, and
// why.
func (t *thread) offer(ctx context.Context, list []*message) (left []*message, why error) {
	l, err := t.from.get(ctx)
	if err != nil {
		return list, err
	}
	replies := make([]<-chan *chatv1.ServerFrame, len(list))
	for i, m := range list {
		replies[i] = l.start(&chatv1.ClientFrame{Body: &chatv1.ClientFrame_Send{
			Send: &chatv1.Send{ConversationId: m.talk, ClientMsgId: m.id[:], Text: m.text},
		}})
	}
	for i, m := range list {
		f, err := l.await(ctx, replies[i])
		if err != nil || f.GetSent().GetSeq() == 0 {
			left = append(left, m)
			if why == nil {
				why = err
			}
			continue
		}
		t.leg.probe.book.acknowledged(m, f.GetSent().GetSeq(), t.to.current())
		t.last = max(t.last, f.GetSent().GetSeq())
	}
	if len(left) > 0 && why == nil {
		why = fmt.Errorf("chat server %s answered a send with something else", l.server)
	}
	return left, why
}

func (e *end) drop() {
	if l := e.current(); l != nil {
		l.end(errEnded)
	}
}

// ordered judges the numbers of a burst. They are above what was acknowledged
// before the burst was sent; within it they rise, unless some had to be offered
// again: two connections are two devices to the log.
func ordered(list []*message, before uint64, clean bool) []fault {
	for i, m := range list {
		if m.seq <= before {
			return []fault{{reordered, fmt.Sprintf("%s: number %d had been acknowledged before it was sent", m, before)}}
		}
		if clean && i > 0 && m.seq <= list[i-1].seq {
			return []fault{{reordered, fmt.Sprintf("%s: a message typed before it has number %d", m, list[i-1].seq)}}
		}
	}
	return nil
}
