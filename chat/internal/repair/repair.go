// Package repair makes up for lost pushes. A push is a hint that may be lost
// anywhere, and a reader that learns of a higher head pulls. So it is enough that
// every reader learns every head, in one of four ways. The numbers of own states
// are announced the same way, to one user each.
//
//   - The head of a conversation that has been quiet for half a heartbeat is
//     announced to all its readers, by routes read anew.
//   - Users are compared with the log (their clients are sent all heads) when
//     something from another server, or a route in Redis, may have been missed, and
//     twice a heartbeat while another server with users cannot be reached.
//   - The periodic check compares every user once in thirty heartbeats.
//   - Package conn sends all heads when a client connects.
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
	// maxRecent conversations and own states are remembered for their announcement.
	// From half of that on all are announced at once. What finds no room is not
	// remembered; instead all users of every server are compared with the log.
	maxRecent = 100_000
	// maxTogether announcements share one look-up of routes.
	maxTogether = 500
	// maxDirty users are remembered one by one. Beyond it all users are compared.
	maxDirty = 50_000
	// usersPerQuery are compared by one query, within compareLimit.
	usersPerQuery = 100
	compareLimit  = 5 * time.Second
	// checkPeriod is how many heartbeats the periodic check takes for all users.
	checkPeriod = 30
	// maxTries is how often a head is announced while a reader's server is not
	// linked: that server has just started, or it died and its routes expire.
	maxTries = 8
)

// Options are what Repair is made of.
type Options struct {
	Heartbeat time.Duration
	// Announce sends heads to their readers, and says of each whether all readers
	// could be reached.
	Announce func(ctx context.Context, announcements []fanout.Announcement) (complete []bool)
	// Heads reads all heads of users from the log.
	Heads func(ctx context.Context, users []uint64) (map[uint64][]*chatv1.Head, error)
	// Deliver pushes frames to users of this server.
	Deliver func(users []uint64, frames []byte) int
	// Users lists who is connected to this server.
	Users func() []uint64
	// Lost is called when heads for the readers on other servers are lost. It must
	// not block.
	Lost func()
	// Partitioned says that a server with users cannot be reached; nil means never.
	Partitioned func() bool
	Logger      *slog.Logger
	Registerer  prometheus.Registerer
}

// Repair remembers what may have been missed. Run is its goroutine. The other
// methods may be called from any goroutine and, except Flush, do not block.
type Repair struct {
	opts                      Options
	announced, compared, lost prometheus.Counter

	mu     sync.Mutex // owns the fields below
	recent map[subject]*recent
	// due was moved here from recent and is announced next.
	due []*recent
	// dirty users are to be compared with the log.
	dirty    map[uint64]struct{}
	allDirty bool
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

func (c *recent) announcement() fanout.Announcement {
	head := &chatv1.Head{ConversationId: c.conversation}
	if c.user != 0 {
		head.OwnState = c.number
	} else {
		head.Seq, head.Ordinal = c.number, c.ordinal
	}
	return fanout.Announcement{Head: head, User: c.user}
}

// New returns a Repair.
func New(opts Options) *Repair {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "msrchat_repair_" + name, Help: help})
	}
	r := &Repair{
		opts:      opts,
		recent:    make(map[subject]*recent),
		dirty:     make(map[uint64]struct{}),
		announced: counter("announced_total", "Heads announced once more to their readers."),
		compared:  counter("compared_total", "Users compared with the log."),
		lost:      counter("lost_total", "Heads that found no room; all users are compared with the log instead."),
	}
	if opts.Registerer != nil {
		opts.Registerer.MustRegister(r.announced, r.compared, r.lost)
	}
	return r
}

// Committed remembers events that were committed. It is for msglog.Options.
func (r *Repair) Committed(batch []msglog.Event) {
	now := time.Now()
	r.mu.Lock()
	lost := 0
	for i := range batch {
		e := &batch[i]
		c := recent{subject: subject{conversation: e.Conversation}, number: e.Seq, ordinal: e.Ordinal, at: now}
		if !r.remember(c) {
			lost++
		}
	}
	r.mu.Unlock()
	r.noRoom(lost)
}

// OwnState remembers the new number of a user's own state.
func (r *Repair) OwnState(user uint64, s *chatv1.OwnState) {
	if planted.Has(planted.StateNotTold) {
		return
	}
	r.mu.Lock()
	ok := r.remember(recent{
		subject: subject{s.GetConversationId(), user}, number: s.GetNumber(), at: time.Now(),
	})
	r.mu.Unlock()
	if !ok {
		r.noRoom(1)
	}
}

// noRoom makes up for numbers that could not be remembered.
func (r *Repair) noRoom(n int) {
	if n > 0 {
		r.lost.Add(float64(n))
		r.MarkAllDirty()
		r.opts.Lost()
	}
}

// remember says whether there was room. It needs the lock.
func (r *Repair) remember(c recent) bool {
	old := r.recent[c.subject]
	if old == nil {
		if len(r.recent)+len(r.due) >= maxRecent {
			return false
		}
		r.recent[c.subject] = &c
		return true
	}
	if c.number > old.number {
		old.number, old.ordinal = c.number, c.ordinal
	}
	old.at, old.tries = c.at, 0
	return true
}

// MarkDirty has a user of this server compared with the log.
func (r *Repair) MarkDirty(user uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.addDirty([]uint64{user})
}

// addDirty needs the lock.
func (r *Repair) addDirty(users []uint64) {
	if len(r.dirty)+len(users) > maxDirty {
		clear(r.dirty)
		r.allDirty = true
		return
	}
	for _, user := range users {
		r.dirty[user] = struct{}{}
	}
}

// MarkAllDirty has all users of this server compared with the log.
func (r *Repair) MarkAllDirty() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.allDirty = true
}

// Run repairs until ctx ends.
func (r *Repair) Run(ctx context.Context) error {
	interval := r.opts.Heartbeat / 10
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for n, partitioned := 0, false; ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if planted.Has(planted.RepairOff) {
			continue
		}
		now := time.Now()
		r.makeDue(now.Add(-r.opts.Heartbeat/2 + interval))
		if n%10 == 0 {
			r.periodicCheck(n / 10)
		}
		if n%5 == 0 {
			partitioned = r.checkPartition(partitioned)
		}
		r.work(ctx, now.Add(interval))
	}
}

// checkPartition marks all users dirty while another server with users cannot be
// reached: the network between two servers may be cut while both reach the database
// and their own users. The log keeps each conversation one, and this keeps its
// readers less than a heartbeat behind, the time that comparing takes included.
func (r *Repair) checkPartition(before bool) (partitioned bool) {
	if r.opts.Partitioned == nil {
		return false
	}
	if partitioned = r.opts.Partitioned(); partitioned != before {
		r.opts.Logger.Warn("peers out of reach", "partitioned", partitioned)
	}
	if partitioned || before { // and once more afterwards, for the last events before its end
		r.MarkAllDirty()
	}
	return partitioned
}

// work announces heads and compares users, some of each in turn, so that neither
// waits for the other, until nothing is left or its time is over.
func (r *Repair) work(ctx context.Context, until time.Time) {
	for away := false; ctx.Err() == nil && time.Now().Before(until); {
		announced, compared := r.announce(ctx), false
		if !away { // users that became dirty meanwhile are compared now, too
			compared, away = r.compare(ctx)
		}
		if !announced && !compared {
			return
		}
	}
}

// makeDue moves what was last changed before a time to due, and everything while
// there is much.
func (r *Repair) makeDue(before time.Time) {
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

func (r *Repair) takeDue() []*recent {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := min(len(r.due), maxTogether)
	batch := r.due[:n:n]
	if r.due = r.due[n:]; len(r.due) == 0 {
		r.due = nil // or the array would keep what was announced in memory
	}
	return batch
}

// announce announces some heads and says whether there may be more.
func (r *Repair) announce(ctx context.Context) (more bool) {
	batch := r.takeDue()
	if len(batch) == 0 {
		return false
	}
	announcements := make([]fanout.Announcement, len(batch))
	for i, c := range batch {
		announcements[i] = c.announcement()
	}
	complete := r.opts.Announce(ctx, announcements)
	r.announced.Add(float64(len(batch)))
	for i, c := range batch {
		if c.tries++; !complete[i] && c.tries < maxTries {
			r.requeue(c)
		}
	}
	return true
}

// requeue puts a change back, unless there was a newer one meanwhile.
func (r *Repair) requeue(c *recent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.recent[c.subject] == nil {
		c.at = time.Now()
		r.recent[c.subject] = c
	}
}

// Flush announces all remembered heads now, for a server that stops. It blocks
// until that is done or ctx ends.
func (r *Repair) Flush(ctx context.Context) {
	r.makeDue(time.Now().Add(time.Hour))
	for more := true; more && ctx.Err() == nil; {
		more = r.announce(ctx)
	}
}

// periodicCheck marks the users whose turn it is in this heartbeat.
func (r *Repair) periodicCheck(beat int) {
	for _, user := range r.opts.Users() {
		if user%checkPeriod == uint64(beat)%checkPeriod {
			r.MarkDirty(user)
		}
	}
}

// takeDirty returns the users to compare next.
func (r *Repair) takeDirty() []uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.allDirty {
		r.allDirty = false
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

// compare compares some dirty users with the log. They stay dirty while the
// database is away.
func (r *Repair) compare(ctx context.Context) (compared, away bool) {
	users := r.takeDirty()
	if len(users) == 0 {
		return false, false
	}
	ctx, cancel := context.WithTimeout(ctx, compareLimit)
	defer cancel()
	heads, err := r.opts.Heads(ctx, users)
	if err != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.addDirty(users)
		r.opts.Logger.Warn("repair waits for the database", "users", len(r.dirty), "err", err)
		return false, true
	}
	for _, user := range users { // also those without heads: a new client waits for a frame
		r.opts.Deliver([]uint64{user}, encode.HeadsFrames(heads[user]...))
	}
	r.compared.Add(float64(len(users)))
	return true, false
}
