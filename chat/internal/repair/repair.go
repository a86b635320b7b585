// Package repair finds what the pushes missed. A push is a hint that may be
// lost anywhere; a reader that learns of a higher head pulls. So it is enough
// that every reader learns every head, and repair sees to that in four ways. The
// numbers of own states are told the same way, to one person each.
//
//   - a conversation that has been quiet for half a heartbeat has its head told
//     once more to all its readers, by routes read anew;
//   - users are checked against the log when something from another server, or
//     a route in Redis, may have been missed;
//   - all users are checked in turn, slowly;
//   - (and package conn tells all heads when a client connects).
package repair

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/planted"

	"github.com/msrchat/msrchat/chat/internal/encode"
	"github.com/msrchat/msrchat/chat/internal/fanout"
	"github.com/msrchat/msrchat/chat/internal/msglog"
)

const (
	// maxRecent conversations are remembered for telling their head once more.
	// When half of that is used all are told at once; what finds no room is not
	// remembered, and everybody on every server is compared with the log instead.
	maxRecent = 100_000
	// tellAtOnce heads are told by one look-up of routes.
	tellAtOnce = 500
	// maxDirty users are remembered one by one; more of them are everybody.
	maxDirty = 50_000
	// usersPerQuery are checked together, within checkLimit.
	usersPerQuery = 100
	checkLimit    = 5 * time.Second
	// sweepTurns heartbeats pass until the slow sweep has seen everybody.
	sweepTurns = 30
	// maxTries is how often a head is told while a reader's server is not linked:
	// such a route is that of a server just started, or of one that died, whose
	// routes expire.
	maxTries = 8
)

// Options are what Repair is made of.
type Options struct {
	Heartbeat time.Duration
	// Tell tells readers how far conversations reach, and says of each whether
	// all could be told.
	Tell func(ctx context.Context, tellings []fanout.Telling) (complete []bool)
	// Heads reads all heads of users from the log.
	Heads func(ctx context.Context, users []uint64) (map[uint64][]*chatv1.Head, error)
	// Deliver pushes frames to users of this server.
	Deliver func(users []uint64, frames []byte) int
	// Users lists who is connected to this server.
	Users func() []uint64
	// Lost is called when heads for the readers on other servers are lost. It must
	// not block.
	Lost       func()
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Repair remembers what may have been missed. Run is its goroutine; the other
// methods may be called from any and do not block, but for Flush.
type Repair struct {
	opts                Options
	told, checked, lost prometheus.Counter

	mu     sync.Mutex // owns the fields below
	recent map[subject]*recent
	// due are those of recent that have become quiet and are to be told.
	due            []*recent
	dirty          map[uint64]struct{}
	everybodyDirty bool
}

// subject is what a number is about: a conversation's log, or, with a user, that
// user's own state in it.
type subject struct{ conversation, user uint64 }

// recent is a subject that this server changed lately.
type recent struct {
	subject
	number  uint64 // the log's head, or the own state's number
	ordinal uint64 // of the head
	at      time.Time
	tries   int
}

// telling is what its readers learn.
func (c *recent) telling() fanout.Telling {
	head := &chatv1.Head{ConversationId: c.conversation}
	if c.user != 0 {
		head.OwnState = c.number
	} else {
		head.Seq, head.Ordinal = c.number, c.ordinal
	}
	return fanout.Telling{Head: head, User: c.user}
}

// New returns a Repair.
func New(opts Options) *Repair {
	r := &Repair{
		opts: opts, recent: make(map[subject]*recent), dirty: make(map[uint64]struct{}),
		told:    prometheus.NewCounter(prometheus.CounterOpts{Name: "msrchat_repair_told_total", Help: "Heads told once more to their readers."}),
		checked: prometheus.NewCounter(prometheus.CounterOpts{Name: "msrchat_repair_checked_total", Help: "Users compared with the log."}),
		lost:    prometheus.NewCounter(prometheus.CounterOpts{Name: "msrchat_repair_lost_total", Help: "Heads that found no room; everybody is compared with the log for them."}),
	}
	if opts.Registerer != nil {
		opts.Registerer.MustRegister(r.told, r.checked, r.lost)
	}
	return r
}

// Committed remembers what was committed. It is for msglog.Options.
func (r *Repair) Committed(batch []msglog.Event) {
	now := time.Now()
	r.mu.Lock()
	lost := 0
	for i := range batch {
		e := &batch[i]
		if !r.remember(recent{subject: subject{conversation: e.Conversation}, number: e.Seq, ordinal: e.Ordinal, at: now}) {
			lost++
		}
	}
	r.mu.Unlock()
	r.missing(lost)
}

// OwnState remembers the new number of a user's own state.
func (r *Repair) OwnState(user uint64, s *chatv1.OwnState) {
	if planted.Has(planted.StateNotTold) {
		return
	}
	r.mu.Lock()
	there := r.remember(recent{
		subject: subject{s.GetConversationId(), user}, number: s.GetNumber(), at: time.Now(),
	})
	r.mu.Unlock()
	if !there {
		r.missing(1)
	}
}

// missing makes up for numbers that found no room.
func (r *Repair) missing(n int) {
	if n > 0 {
		r.lost.Add(float64(n))
		r.Everybody()
		r.opts.Lost()
	}
}

// remember says whether there was room. It needs the lock.
func (r *Repair) remember(c recent) bool {
	known := r.recent[c.subject]
	if known == nil {
		if len(r.recent)+len(r.due) >= maxRecent {
			return false
		}
		r.recent[c.subject] = &c
		return true
	}
	if c.number > known.number {
		known.number, known.ordinal = c.number, c.ordinal
	}
	known.at, known.tries = c.at, 0
	return true
}

// Dirty asks that a user of this server be compared with the log.
func (r *Repair) Dirty(user uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.markDirty([]uint64{user})
}

// markDirty needs the lock.
func (r *Repair) markDirty(users []uint64) {
	if len(r.dirty)+len(users) > maxDirty {
		clear(r.dirty)
		r.everybodyDirty = true
		return
	}
	for _, user := range users {
		r.dirty[user] = struct{}{}
	}
}

// Everybody asks it of all who are connected.
func (r *Repair) Everybody() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.everybodyDirty = true
}

// Run repairs until ctx ends.
func (r *Repair) Run(ctx context.Context) error {
	turn := r.opts.Heartbeat / 10
	ticker := time.NewTicker(turn)
	defer ticker.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if planted.Has(planted.RepairOff) {
			continue
		}
		now := time.Now()
		r.quiet(now.Add(-r.opts.Heartbeat/2 + turn))
		if n%10 == 0 {
			r.sweep(n / 10)
		}
		r.work(ctx, now.Add(turn))
	}
}

// work tells heads and compares users, some of each in turn, so that neither
// waits for the other, until nothing is left or its time is over.
func (r *Repair) work(ctx context.Context, until time.Time) {
	for away := false; ctx.Err() == nil && time.Now().Before(until); {
		told, compared := r.tell(ctx), false
		if !away { // who became dirty meanwhile is compared in this turn, too
			compared, away = r.check(ctx)
		}
		if !told && !compared {
			return
		}
	}
}

// quiet makes due the conversations that were last appended to before a time,
// and all while there are many.
func (r *Repair) quiet(before time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	many := len(r.recent)+len(r.due) > maxRecent/2
	for id, c := range r.recent {
		if many || c.at.Before(before) {
			r.due = append(r.due, c)
			delete(r.recent, id)
		}
	}
}

// next takes what is told next.
func (r *Repair) next() []*recent {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := min(len(r.due), tellAtOnce)
	batch := r.due[:n:n]
	if r.due = r.due[n:]; len(r.due) == 0 {
		r.due = nil // or the array would hold on to what was told
	}
	return batch
}

// tell tells some heads and says whether there may be more.
func (r *Repair) tell(ctx context.Context) (more bool) {
	batch := r.next()
	if len(batch) == 0 {
		return false
	}
	tellings := make([]fanout.Telling, len(batch))
	for i, c := range batch {
		tellings[i] = c.telling()
	}
	complete := r.opts.Tell(ctx, tellings)
	r.told.Add(float64(len(batch)))
	for i, c := range batch {
		if c.tries++; !complete[i] && c.tries < maxTries {
			r.again(c)
		}
	}
	return true
}

// again puts a conversation back, unless it was appended to meanwhile.
func (r *Repair) again(c *recent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.recent[c.subject] == nil {
		c.at = time.Now()
		r.recent[c.subject] = c
	}
}

// Flush tells all remembered heads now: for a server that leaves. It blocks
// until that is done or ctx ends.
func (r *Repair) Flush(ctx context.Context) {
	r.quiet(time.Now().Add(time.Hour))
	for more := true; more && ctx.Err() == nil; {
		more = r.tell(ctx)
	}
}

// sweep marks the users whose turn it is.
func (r *Repair) sweep(turn int) {
	for _, user := range r.opts.Users() {
		if user%sweepTurns == uint64(turn)%sweepTurns {
			r.Dirty(user)
		}
	}
}

// takeDirty returns the users to compare next.
func (r *Repair) takeDirty() []uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.everybodyDirty {
		r.everybodyDirty = false
		clear(r.dirty)
		for _, user := range r.opts.Users() {
			r.dirty[user] = struct{}{}
		}
	}
	users := make([]uint64, 0, min(len(r.dirty), usersPerQuery))
	for user := range r.dirty {
		if len(users) == usersPerQuery {
			break
		}
		users = append(users, user)
		delete(r.dirty, user)
	}
	return users
}

// check compares some users with the log, if there are any. Those whose heads
// cannot be read stay dirty: the database is away.
func (r *Repair) check(ctx context.Context) (compared, away bool) {
	users := r.takeDirty()
	if len(users) == 0 {
		return false, false
	}
	ctx, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	heads, err := r.opts.Heads(ctx, users)
	if err != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.markDirty(users)
		r.opts.Logger.Warn("repair waits for the database", "users", len(r.dirty), "err", err)
		return false, true
	}
	for _, user := range users { // also who has none: a client may wait to be told so
		r.opts.Deliver([]uint64{user}, encode.HeadsFrames(heads[user]...))
	}
	r.checked.Add(float64(len(users)))
	return true, false
}
