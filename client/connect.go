package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"

	"github.com/msrchat/msrchat/client/internal/link"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/wire"
)

// Backoff are the waits between attempts to connect. Zero fields are replaced.
type Backoff struct {
	// First bounds the random wait before the first new attempt: 250 ms. It
	// spreads the reconnects of a dead server's users.
	First time.Duration
	// Base is the second wait, which then doubles up to Cap: 500 ms and 15 s. Each
	// wait is a random part of that, at least half.
	Base, Cap time.Duration
	// Stable is how long a connection must last to begin again with First: 10 s.
	Stable time.Duration
}

func (b Backoff) orDefault() Backoff {
	set := func(d *time.Duration, value time.Duration) {
		if *d <= 0 {
			*d = value
		}
	}
	set(&b.First, 250*time.Millisecond)
	set(&b.Base, 500*time.Millisecond)
	set(&b.Cap, 15*time.Second)
	set(&b.Stable, 10*time.Second)
	return b
}

// wait is the time before attempt n+1 after n failures in a row.
func (b Backoff) wait(failures int) time.Duration {
	if failures <= 1 {
		return rand.N(b.First + 1)
	}
	d := b.Base
	for range failures - 2 {
		if d *= 2; d >= b.Cap {
			break
		}
	}
	return jitter(min(d, b.Cap))
}

const (
	// assignTimeout bounds the wait for gate before known servers are tried.
	assignTimeout = 5 * time.Second
	// maxKnown bounds the remembered endpoints.
	maxKnown = 16
	// avoidFor is how long an instance that failed is not asked for.
	avoidFor = 20 * time.Second
	// maxWait bounds what a server or gate may ask us to wait.
	maxWait = 10 * time.Minute
)

// dialInput is a snapshot for the goroutine that dials.
type dialInput struct {
	assignment *Assignment // to use instead of asking gate
	avoid      []string
	known      []Endpoint
}

// dialOutcome is the result of an attempt: a link, or an error.
type dialOutcome struct {
	link   *link.Link
	server Endpoint
	failed []string   // instances that refused us
	learnt []Endpoint // alternates that were named on the way
	err    error
}

// connect starts an attempt. Its outcome comes through dialed.
func (o *owner) connect() {
	now := time.Now()
	in := dialInput{assignment: o.assignment, known: slices.Clone(o.known)}
	o.assignment = nil
	if in.assignment != nil && !now.Before(in.assignment.ExpiresAt) {
		in.assignment = nil
	}
	for instance, until := range o.avoid {
		if now.Before(until) {
			in.avoid = append(in.avoid, instance)
		} else {
			delete(o.avoid, instance)
		}
	}
	o.retryAt = time.Time{}
	o.setLink(Link{State: Connecting, Cause: o.Client.Link().Cause})
	o.dialing = true
	go func() { o.dialed <- o.Client.dial(o.ctx, in) }()
}

// dial tries the assigned server or, while gate or status is away, known ones.
func (c *Client) dial(ctx context.Context, in dialInput) dialOutcome {
	var out dialOutcome
	candidates, assignmentID := []Endpoint(nil), ""
	a, err := c.assignment(ctx, in)
	switch {
	case err == nil:
		candidates, assignmentID = []Endpoint{a.Server}, a.ID
		out.learnt = append([]Endpoint{a.Server}, a.Alternates...)
	case errs.CodeOf(err) == errs.CodeUnavailable || errs.CodeOf(err) == errs.CodeInternal:
		candidates = byAvoidance(in.known, in.avoid)
	}
	out.err = err
	who := wire.Login{Token: c.opt.Session.Token, Program: c.opt.Program, Assignment: assignmentID}
	for _, server := range candidates {
		l, err := link.Dial(ctx, server.proto(), who, c.opt.TLS)
		if err == nil {
			out.link, out.server, out.err = l, server, nil
			return out
		}
		out.failed = append(out.failed, server.Instance)
		out.err = errors.Join(err, out.err) // the newest first: retry acts on that one
		var bye *wire.GoodbyeError
		if errors.As(err, &bye) {
			out.learnt = append(endpoints(bye.Goodbye.GetAlternates()), out.learnt...)
			if !bye.Reconnect() {
				break
			}
		}
		if ctx.Err() != nil {
			break
		}
	}
	return out
}

// assignment asks gate. If all servers are to be avoided, any will do.
func (c *Client) assignment(ctx context.Context, in dialInput) (Assignment, error) {
	if in.assignment != nil {
		return *in.assignment, nil
	}
	ctx, cancel := context.WithTimeout(ctx, assignTimeout)
	defer cancel()
	a, err := c.opt.Gate.Assign(ctx, c.opt.Session.Token, in.avoid)
	if errs.CodeOf(err) == errs.CodeExhausted && len(in.avoid) > 0 {
		a, err = c.opt.Gate.Assign(ctx, c.opt.Session.Token, nil)
	}
	if err == nil && a.Server.Address == "" {
		err = errs.New(errs.CodeUnavailable, "the gate assigned no server")
	}
	return a, err
}

// byAvoidance sorts the instances to avoid last.
func byAvoidance(known []Endpoint, avoid []string) []Endpoint {
	out := slices.Clone(known)
	slices.SortStableFunc(out, func(a, b Endpoint) int {
		return rank(slices.Contains(avoid, a.Instance)) - rank(slices.Contains(avoid, b.Instance))
	})
	return out
}

func rank(last bool) int {
	if last {
		return 1
	}
	return 0
}

func (o *owner) onDialed(d dialOutcome) {
	o.dialing = false
	o.remember(d.learnt)
	for _, instance := range d.failed {
		o.avoidInstance(instance)
	}
	if d.err != nil {
		o.retry(d.err)
		return
	}
	w := d.link.Welcome
	if w.GetUserId() != o.opt.Session.User.ID {
		d.link.Close()
		o.stop(LoggedOut, errs.New(errs.CodeUnauthenticated, "the session belongs to another account; log in again"))
		return
	}
	if err := o.beginEpoch(w.GetLogEpoch()); err != nil {
		// Without the store nothing is sent or received; it may come back.
		d.link.Close()
		o.retry(fmt.Errorf("use local store: %w", err))
		return
	}
	o.live, o.frames, o.since = d.link, d.link.Frames(), time.Now()
	o.remember(endpoints(w.GetAlternates()))
	o.remember([]Endpoint{d.server})
	o.keepEndpoints()
	delete(o.avoid, w.GetInstance())
	o.outbox.maybe, o.outbox.more = true, true
	o.setLink(Link{State: Online, Instance: w.GetInstance(), Address: d.server.Address, Release: w.GetRelease()})
}

// onLost puts back what was under way and plans the next attempt.
func (o *owner) onLost(err error) {
	instance := o.live.Welcome.GetInstance()
	if time.Since(o.since) >= o.opt.Backoff.Stable {
		o.attempts = 0
	}
	o.live, o.frames, o.state = nil, nil, Offline
	o.dropPending()
	o.flush()
	o.unlock()
	var bye *wire.GoodbyeError
	if errors.As(err, &bye) {
		o.remember(endpoints(bye.Goodbye.GetAlternates()))
	}
	if bye == nil || bye.Avoid() {
		o.avoidInstance(instance)
	}
	o.retry(err)
}

// retry plans the next attempt after a failure, or stops for good.
func (o *owner) retry(err error) {
	if o.ctx.Err() != nil {
		o.state = Offline // until run ends
		return
	}
	asked := time.Duration(0)
	var bye *wire.GoodbyeError
	var e *errs.Error
	switch {
	case errors.As(err, &bye) && bye.LoggedOut():
		o.stop(LoggedOut, errs.Wrap(errs.CodeUnauthenticated, err, bye.Text()))
		return
	case bye != nil && !bye.Reconnect():
		o.stop(Stopped, errs.Wrap(errs.CodeForbidden, err, bye.Error()))
		return
	case bye != nil:
		asked = bye.After()
	case errs.CodeOf(err) == errs.CodeUnauthenticated:
		o.stop(LoggedOut, errs.Wrap(errs.CodeUnauthenticated, err, "the session has ended; log in again"))
		return
	case errors.As(err, &e):
		asked = e.RetryAfter
	}
	o.attempts++
	wait := o.opt.Backoff.wait(o.attempts)
	if asked > 0 {
		// The server paces reconnects by that time; a little more, at random, spreads
		// clients that got the same one.
		asked = min(asked, maxWait)
		asked += rand.N(min(asked/10, o.opt.Backoff.First) + 1)
		if o.attempts <= 1 {
			wait = asked
		}
		wait = max(wait, asked)
	}
	o.retryAt = time.Now().Add(wait)
	o.setLink(Link{State: Offline, Cause: err, RetryAt: o.retryAt})
}

// stop ends all connecting and answers all waiting calls.
func (o *owner) stop(state LinkState, cause error) {
	o.retryAt = time.Time{}
	o.setLink(Link{State: state, Cause: cause})
	for _, call := range o.calls {
		call.reply <- result{err: cause}
	}
	o.calls = nil
	o.dropWaiters()
}

func (o *owner) retryNow() {
	if o.state == Offline {
		o.connect()
	}
}

func (o *owner) avoidInstance(instance string) {
	if instance != "" {
		o.avoid[instance] = time.Now().Add(avoidFor)
	}
}

// remember puts endpoints before the known ones.
func (o *owner) remember(fresh []Endpoint) {
	all := slices.Concat(fresh, o.known)
	o.known = o.known[:0:0]
	for _, e := range all {
		same := func(k Endpoint) bool { return k.Address == e.Address }
		if e.Address != "" && len(o.known) < maxKnown && !slices.ContainsFunc(o.known, same) {
			o.known = append(o.known, e)
		}
	}
}

// metaEndpoints is where the store keeps the known servers, so that a program
// that starts while gate is away finds one.
const metaEndpoints = "endpoints"

func (o *owner) keepEndpoints() {
	now := addresses(o.known)
	if now == o.kept {
		return
	}
	o.kept = now
	raw, err := json.Marshal(o.known)
	if err == nil {
		err = o.opt.Store.SetMeta(o.ctx, metaEndpoints, string(raw))
	}
	if err != nil {
		o.log.Warn("endpoints not kept", "err", err)
	}
}

func (o *owner) rememberedEndpoints() (known []Endpoint) {
	raw, err := o.opt.Store.Meta(o.ctx, metaEndpoints)
	if err == nil && raw != "" {
		err = json.Unmarshal([]byte(raw), &known)
	}
	if err != nil {
		o.log.Warn("endpoints not read", "err", err)
		return nil
	}
	return known
}

// addresses is the set of addresses, whatever their order.
func addresses(list []Endpoint) string {
	var all []string
	for _, e := range list {
		all = append(all, e.Instance+"="+e.Address)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func (e Endpoint) proto() *chatv1.Endpoint {
	return &chatv1.Endpoint{Instance: e.Instance, Address: e.Address, TlsServerName: e.TLSServerName}
}

func endpoints(list []*chatv1.Endpoint) []Endpoint {
	out := make([]Endpoint, 0, len(list))
	for _, e := range list {
		out = append(out, Endpoint{
			Instance: e.GetInstance(), Address: e.GetAddress(),
			TLSServerName: e.GetTlsServerName(),
		})
	}
	return out
}
