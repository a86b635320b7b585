package probe

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/msrchat/msrchat/shared/retry"
	"github.com/msrchat/msrchat/shared/wire"
)

const (
	// reconnectFor is how long a lost connection is tried again before the round is
	// given up: a restarted chat server is back in two seconds.
	reconnectFor = 8 * time.Second
	// reconnectEvery is the wait between two attempts.
	reconnectEvery = 200 * time.Millisecond
	// maxOpen bounds the messages without a verdict, a few megabytes.
	maxOpen = 10_000
	// roundLimit bounds a round beyond the time that its rate asks for.
	roundLimit = 3 * time.Minute
)

// limiter spreads the messages of all senders evenly. Its mutex owns next.
type limiter struct {
	every time.Duration
	mu    sync.Mutex
	next  time.Time
}

// wait returns when n more messages may be sent; false means that ctx ended.
func (l *limiter) wait(ctx context.Context, n int) bool {
	l.mu.Lock()
	now := time.Now()
	if l.next.Before(now) {
		l.next = now
	}
	at := l.next
	l.next = at.Add(time.Duration(n) * l.every)
	l.mu.Unlock()
	return retry.Sleep(ctx, time.Until(at))
}

// round is a number of messages between the near accounts, on the probe's chat
// server, and the far ones, on another server or the same.
type round struct {
	probe        *Probe
	participants map[uint64]*participant // by user
	limiter      *limiter
	left         atomic.Int64 // messages still to send
}

// participant is one account in a round: a connection that is opened when it is
// needed, and again when it was lost. The mutex owns the fields below it and is
// held while a connection is opened, so that one goroutine does it for all.
type participant struct {
	round   *round
	account *account
	server  server

	mu   sync.Mutex
	conn *conn
	gone error // why there are no more attempts
}

// connected returns the connection, and opens it if there is none.
func (p *participant) connected(ctx context.Context) (*conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone != nil {
		return nil, p.gone
	}
	if p.conn != nil && p.conn.alive() {
		return p.conn, nil
	}
	probe := p.round.probe
	for deadline := time.Now().Add(reconnectFor); ; {
		c, err := probe.dial(ctx, p.server, p.account)
		if err == nil {
			p.conn = c
			probe.checkEpoch(c)
			return c, nil
		}
		if probe.refused(ctx, p.account, err) || time.Now().After(deadline) || !retry.Sleep(ctx, reconnectEvery) {
			p.gone = err
			return nil, err
		}
	}
}

// current is the open connection, nil if there is none.
func (p *participant) current() *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn != nil && p.conn.alive() {
		return p.conn
	}
	return nil
}

func (p *participant) disconnect() {
	if c := p.current(); c != nil {
		c.end(errEnded)
	}
}

func (p *participant) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn != nil {
		p.conn.close()
	}
	p.gone = errEnded
}

// refused says whether the server said goodbye: then connecting again is left to
// the next round. A token that is no longer accepted is replaced.
func (p *Probe) refused(ctx context.Context, who *account, err error) bool {
	var bye *wire.GoodbyeError
	if !errors.As(err, &bye) {
		return false
	}
	if bye.LoggedOut() {
		if err := p.accounts.logIn(ctx, who); err != nil {
			p.trouble(fmt.Errorf("log %s in: %w", who.name, err))
		}
	}
	return true
}

// checkEpoch drops all messages when the logs lost a tail by a restore: what was
// acknowledged before cannot be judged.
func (p *Probe) checkEpoch(c *conn) {
	if before := p.epoch.Swap(c.epoch); before != 0 && before != c.epoch {
		p.log.Warn("the log epoch changed: what was acknowledged before is not judged",
			"epoch", c.epoch, "messages", p.tracker.clear())
	}
}

// run probes with one server: n messages in the conversations of the chosen
// accounts. It returns how many were verified. An error is trouble, not a broken
// promise.
func (p *Probe) run(ctx context.Context, far server, n int, every time.Duration, nearOnes, farOnes []int) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, roundLimit+time.Duration(n)*every)
	defer cancel()
	r := &round{probe: p, participants: map[uint64]*participant{}, limiter: &limiter{every: every}}
	r.left.Store(int64(n))
	for i := range perSide {
		r.add(p.accounts.near[i], p.home())
		r.add(p.accounts.far[i], far)
	}
	defer func() {
		for _, one := range r.participants {
			one.close()
		}
	}()
	var trouble error
	if p.tracker.size() < maxOpen { // otherwise those are settled first
		trouble = r.exchange(ctx, nearOnes, farOnes)
	}
	if trouble == nil {
		trouble = r.awaitDelivery(ctx)
	}
	verified, err := r.verify(ctx)
	return verified, errors.Join(trouble, err)
}

func (r *round) add(one *account, on server) {
	r.participants[one.id] = &participant{round: r, account: one, server: on}
}

// exchange connects the chosen accounts, then has both sides of every
// conversation write.
func (r *round) exchange(ctx context.Context, nearOnes, farOnes []int) error {
	accounts := r.probe.accounts
	var near, far []*participant
	for _, i := range nearOnes {
		near = append(near, r.participants[accounts.near[i].id])
	}
	for _, j := range farOnes {
		far = append(far, r.participants[accounts.far[j].id])
	}
	for _, one := range append(near[:len(near):len(near)], far...) {
		if _, err := one.connected(ctx); err != nil {
			return err
		}
	}
	var group sync.WaitGroup
	problems := make(chan error, 2*len(near)*len(far))
	for i, a := range near {
		for j, b := range far {
			id := accounts.conversations[nearOnes[i]][farOnes[j]]
			for _, s := range []*sender{
				{round: r, conversation: id, from: a, to: b}, {round: r, conversation: id, from: b, to: a},
			} {
				group.Go(func() {
					if err := s.run(ctx); err != nil {
						problems <- err
					}
				})
			}
		}
	}
	group.Wait()
	close(problems)
	return <-problems // one is enough; nil if there is none
}
