// Package repair finds what the pushes missed. A push is a hint that may be
// lost anywhere; a reader that learns of a higher head pulls. So it is enough
// that every reader learns every head, and repair sees to that in four ways:
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
	"github.com/msrchat/msrchat/shared/msglog"
	"github.com/msrchat/msrchat/shared/planted"

	"github.com/msrchat/msrchat/chat/internal/conn"
)

const (
	// maxRecent conversations are remembered for telling their head once more.
	// Beyond it, heads of the oldest ones are told at once.
	maxRecent = 100_000
	// usersPerQuery are checked together.
	usersPerQuery = 100
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
	// Tell tells users how far a conversation reaches; false means that not all
	// could be told yet.
	Tell func(ctx context.Context, head *chatv1.Head, users []uint64) bool
	// Heads reads all heads of users from the log.
	Heads func(ctx context.Context, users []uint64) (map[uint64][]*chatv1.Head, error)
	// Deliver pushes frames to users of this server.
	Deliver func(users []uint64, frames []byte) int
	// Users lists who is connected to this server.
	Users      func() []uint64
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Repair remembers what may have been missed. Run is its goroutine; the other
// methods may be called from any and do not block.
type Repair struct {
	opts           Options
	told, checked  prometheus.Counter
	mu             sync.Mutex // owns the fields below
	recent         map[uint64]*recent
	dirty          map[uint64]struct{}
	everybodyDirty bool
}

// recent is a conversation that this server appended to lately.
type recent struct {
	head     uint64
	audience []uint64
	at       time.Time
	tries    int
}

// New returns a Repair.
func New(opts Options) *Repair {
	r := &Repair{
		opts: opts, recent: make(map[uint64]*recent), dirty: make(map[uint64]struct{}),
		told:    prometheus.NewCounter(prometheus.CounterOpts{Name: "msrchat_repair_told_total", Help: "Heads told once more to their readers."}),
		checked: prometheus.NewCounter(prometheus.CounterOpts{Name: "msrchat_repair_checked_total", Help: "Users compared with the log."}),
	}
	if opts.Registerer != nil {
		opts.Registerer.MustRegister(r.told, r.checked)
	}
	return r
}

// Committed remembers what was committed. It is for msglog.Options.
func (r *Repair) Committed(batch []msglog.Committed) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range batch {
		c := &batch[i]
		known := r.recent[c.ConversationID]
		if known == nil {
			known = &recent{}
			r.recent[c.ConversationID] = known
		}
		known.head, known.audience, known.at, known.tries = max(known.head, c.Result.Seq), c.Audience, now, 0
	}
}

// Dirty asks that a user of this server be compared with the log.
func (r *Repair) Dirty(user uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dirty[user] = struct{}{}
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
		r.tell(ctx, r.quiet(time.Now().Add(-r.opts.Heartbeat/2+turn)))
		if n%10 == 0 {
			r.sweep(n / 10)
		}
		r.check(ctx, r.takeDirty())
	}
}

// quiet removes and returns the conversations that were last appended to before
// a time, and all while there are too many.
func (r *Repair) quiet(before time.Time) map[uint64]*recent {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.recent) > maxRecent {
		all := r.recent
		r.recent = make(map[uint64]*recent)
		return all
	}
	out := make(map[uint64]*recent)
	for id, c := range r.recent {
		if c.at.Before(before) {
			out[id] = c
			delete(r.recent, id)
		}
	}
	return out
}

func (r *Repair) tell(ctx context.Context, conversations map[uint64]*recent) {
	for id, c := range conversations {
		r.told.Inc()
		if r.opts.Tell(ctx, &chatv1.Head{ConversationId: id, Seq: c.head}, c.audience) {
			continue
		}
		if c.tries++; c.tries < maxTries {
			r.again(id, c)
		}
	}
}

// again puts a conversation back, unless it was appended to meanwhile.
func (r *Repair) again(id uint64, c *recent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.recent[id] == nil {
		c.at = time.Now()
		r.recent[id] = c
	}
}

// Flush tells all remembered heads now: for a server that leaves.
func (r *Repair) Flush(ctx context.Context) {
	r.tell(ctx, r.quiet(time.Now().Add(time.Hour)))
}

// sweep marks the users whose turn it is.
func (r *Repair) sweep(turn int) {
	for _, user := range r.opts.Users() {
		if user%sweepTurns == uint64(turn)%sweepTurns {
			r.Dirty(user)
		}
	}
}

func (r *Repair) takeDirty() []uint64 {
	r.mu.Lock()
	everybody := r.everybodyDirty
	r.everybodyDirty = false
	users := make([]uint64, 0, len(r.dirty))
	for user := range r.dirty {
		users = append(users, user)
	}
	clear(r.dirty)
	r.mu.Unlock()
	if everybody {
		return r.opts.Users()
	}
	return users
}

// check compares users with the log. Those whose heads cannot be read stay
// dirty.
func (r *Repair) check(ctx context.Context, users []uint64) {
	for len(users) > 0 && ctx.Err() == nil {
		n := min(len(users), usersPerQuery)
		heads, err := r.opts.Heads(ctx, users[:n])
		if err != nil {
			r.opts.Logger.Warn("repair waits for the database", "users", len(users), "err", err)
			for _, user := range users {
				r.Dirty(user)
			}
			return
		}
		for user, of := range heads {
			r.opts.Deliver([]uint64{user}, conn.HeadsFrames(of))
		}
		r.checked.Add(float64(n))
		users = users[n:]
	}
}
