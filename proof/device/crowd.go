package device

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/proof/account"
	"github.com/msrchat/msrchat/proof/journal"
	"github.com/msrchat/msrchat/shared/conversation"
)

// CrowdOptions say who talks. Gate, People and Conversations must be set.
type CrowdOptions struct {
	Gate client.Assigner
	// People are the users; each has a device for each of its sessions.
	People []account.Account
	// Conversations are the direct conversations by id.
	Conversations map[uint64]conversation.Pair
	// Sizes are the texts' lengths in characters; see NewTexts.
	Sizes []int
	// Seed decides who types what when.
	Seed uint64
	// MaxUnsettled bounds what a device has typed and is not settled yet; 256 if
	// 0. Beyond it a device types nothing.
	MaxUnsettled int
	// Change may set more of the clients' options.
	Change func(*client.Options)
}

// Crowd is many devices whose people talk in pairs. Its methods may be called
// from any goroutine, Talk from one at a time.
type Crowd struct {
	opt     CrowdOptions
	devices []*Device
	seats   []seat
	// Talk's: who types when, who sets what, and the texts.
	rnd, set *rand.Rand
	texts    *Texts

	typed, heldBack, missed atomic.Int64
}

// seat is a device in one of its user's conversations.
type seat struct {
	device       *Device
	conversation uint64
}

const (
	// joining bounds the devices that log in at once.
	joining = 32
	// maxSync is how long servers may take to accept the own states: the longest
	// wait after a refusal, twice.
	maxSync = 10 * time.Second
	// poll is how often a wait polls its condition.
	poll = 20 * time.Millisecond
	// maxBehind is how far Talk may fall behind its plan before it leaves out what
	// was due: a stopped process must not burst for minutes afterwards.
	maxBehind = time.Second
)

// NewCrowd opens the devices and waits until each has joined: whatever is typed
// from then on must reach all of its conversation. The devices end with ctx or
// Close.
func NewCrowd(ctx context.Context, opt CrowdOptions) (*Crowd, error) {
	if opt.MaxUnsettled <= 0 {
		opt.MaxUnsettled = 256
	}
	c := &Crowd{
		opt: opt, rnd: rand.New(rand.NewPCG(opt.Seed, 2)), set: rand.New(rand.NewPCG(opt.Seed, 3)),
		texts: NewTexts(opt.Seed, opt.Sizes...),
	}
	of := make(map[uint64][]uint64) // a user's conversations
	for id, p := range opt.Conversations {
		of[p.A], of[p.B] = append(of[p.A], id), append(of[p.B], id)
	}
	group, joinCtx := errgroup.WithContext(ctx)
	group.SetLimit(joining)
	for _, person := range opt.People {
		for i, session := range person.Sessions {
			d, err := Open(ctx, Options{
				Gate: opt.Gate, Session: session, Name: fmt.Sprintf("%s/%d", person.Name, i+1), Change: opt.Change,
			})
			if err != nil {
				c.Close() // ends the joining, too
				return nil, errors.Join(err, group.Wait())
			}
			c.devices = append(c.devices, d)
			for _, id := range of[person.ID] {
				c.seats = append(c.seats, seat{d, id})
			}
			group.Go(func() error { return d.Join(joinCtx) })
		}
	}
	if err := group.Wait(); err != nil {
		c.Close()
		return nil, err
	}
	if len(c.seats) == 0 {
		c.Close()
		return nil, errors.New("the crowd has nobody who could talk")
	}
	return c, nil
}

// Close ends all devices.
func (c *Crowd) Close() {
	var all sync.WaitGroup
	for _, d := range c.devices {
		all.Go(d.Close)
	}
	all.Wait()
}

// Devices are all devices of the crowd; the slice must not be changed.
func (c *Crowd) Devices() []*Device { return c.devices }

// Journals are those of all devices.
func (c *Crowd) Journals() []*journal.Journal {
	all := make([]*journal.Journal, 0, len(c.devices))
	for _, d := range c.devices {
		all = append(all, d.Journal())
	}
	return all
}

// Counts say what was typed so far, and what was not although it was due: by a
// device that had too much unsettled, or because Talk could not keep up.
type Counts struct{ Typed, HeldBack, Missed int64 }

// Counts may be read while people talk.
func (c *Crowd) Counts() Counts { return Counts{c.typed.Load(), c.heldBack.Load(), c.missed.Load()} }

// Unsettled is how many messages were typed and are neither acknowledged nor
// refused.
func (c *Crowd) Unsettled() (n int) {
	for _, d := range c.devices {
		n += d.Unsettled()
	}
	return n
}

// Talk has people type at a total rate (messages per second) until ctx ends,
// in an open loop: the pauses are random with that mean, and nobody waits for
// an answer. It returns when the last message is in an outbox.
func (c *Crowd) Talk(ctx context.Context, rate float64) error {
	if rate <= 0 {
		return fmt.Errorf("a crowd cannot talk at a rate of %v", rate)
	}
	pause := func() time.Duration { return time.Duration(c.rnd.ExpFloat64() / rate * float64(time.Second)) }
	timer := time.NewTimer(0)
	defer timer.Stop()
	due := time.Now().Add(pause())
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		now := time.Now()
		for !due.After(now) {
			if now.Sub(due) > maxBehind {
				c.missed.Add(1)
			} else if err := c.typeOne(ctx); err != nil {
				return err
			}
			due = due.Add(pause())
		}
		timer.Reset(due.Sub(now))
	}
}

// typeOne has one device type one text.
func (c *Crowd) typeOne(ctx context.Context) error {
	s := c.seats[c.rnd.IntN(len(c.seats))]
	text := c.texts.Next() // also where it is held back: the seed decides the rest
	if s.device.Unsettled() >= c.opt.MaxUnsettled {
		c.heldBack.Add(1)
		return nil
	}
	if _, err := s.device.Say(ctx, s.conversation, text); err != nil {
		return err
	}
	c.typed.Add(1)
	return c.setOne(ctx)
}

// setOne has, at every fourth message, one device set something for its person:
// a read mark or a draft.
func (c *Crowd) setOne(ctx context.Context) error {
	const every, longest = 8, 200
	s := c.seats[c.set.IntN(len(c.seats))]
	switch c.set.IntN(every) {
	case 0:
		return s.device.Mark(ctx, s.conversation)
	case 1:
		text := []rune(c.texts.Next())
		return s.device.Draft(ctx, s.conversation, string(text[:min(len(text), longest)]))
	}
	return nil
}

// Quiet waits until everything typed is settled and every device online, and
// returns when that was; nobody may type meanwhile. Then it gives the devices two
// heartbeats to show what they lack, and returns as soon as they do: what they
// still lack then, the check of the journals reports.
func (c *Crowd) Quiet(ctx context.Context, heartbeat time.Duration) (time.Time, error) {
	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	for !c.settled() {
		select {
		case <-ctx.Done():
			return time.Time{}, c.notQuiet(ctx.Err())
		case <-ticker.C:
		}
	}
	// An own state may be refused for good, where a bug lost what was read; that must
	// not keep the run from being judged.
	for limit := time.Now().Add(maxSync); !c.synced() && time.Now().Before(limit) && ctx.Err() == nil; {
		<-ticker.C
	}
	quiet := time.Now()
	for !c.complete() && time.Since(quiet) < 2*heartbeat {
		select {
		case <-ctx.Done():
			return quiet, nil
		case <-ticker.C:
		}
	}
	return quiet, nil
}

func (c *Crowd) settled() bool {
	for _, d := range c.devices {
		if !d.Online() || d.Unsettled() > 0 {
			return false
		}
	}
	return true
}

// synced says whether a server has every own state as its device has it.
func (c *Crowd) synced() bool {
	for _, d := range c.devices {
		if _, synced := d.OwnNumbers(context.Background()); !synced {
			return false
		}
	}
	return true
}

// complete says whether every device was shown every conversation up to the
// greatest number that any device knows of, and has the newest own states that any
// device of its user has.
func (c *Crowd) complete() bool {
	type member struct{ user, conversation uint64 }
	newest := make(map[member]uint64)
	has := make(map[*Device]map[uint64]uint64, len(c.devices))
	for _, d := range c.devices {
		has[d], _ = d.OwnNumbers(context.Background())
		for id, n := range has[d] {
			newest[member{d.User(), id}] = max(newest[member{d.User(), id}], n)
		}
	}
	for _, s := range c.seats {
		if has[s.device][s.conversation] < newest[member{s.device.User(), s.conversation}] {
			return false
		}
	}
	heads := make(map[uint64]uint64, len(c.opt.Conversations))
	for _, s := range c.seats {
		heads[s.conversation] = max(heads[s.conversation], s.device.Head(s.conversation))
	}
	for _, s := range c.seats {
		if s.device.Top(s.conversation) < heads[s.conversation] {
			return false
		}
	}
	return true
}

// notQuiet says why the crowd does not become quiet.
func (c *Crowd) notQuiet(cause error) error {
	var offline, unsettled int
	var first *Device
	for _, d := range c.devices {
		if !d.Online() {
			if offline++; first == nil {
				first = d
			}
		}
		unsettled += d.Unsettled()
	}
	err := fmt.Errorf("not quiet: %d of %d devices are offline, %d messages unsettled: %w",
		offline, len(c.devices), unsettled, cause)
	if first != nil {
		link := first.Client().Link()
		return fmt.Errorf("%w; %s is %s: %s", err, first.Name, link.State, client.Describe(link.Cause))
	}
	return err
}
