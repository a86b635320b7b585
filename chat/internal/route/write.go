package route

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// write writes routes, and returns those that Redis did not have.
func (t *Table) write(ctx context.Context, routes []local) (added []local, err error) {
	ctx, cancel := context.WithTimeout(ctx, 4*timeout)
	defer cancel()
	now := time.Now()
	adds := make([]*redis.IntCmd, len(routes))
	_, err = t.opts.Redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, l := range routes {
			k := t.key(l.user)
			adds[i] = p.ZAdd(ctx, k, redis.Z{Score: float64(now.Add(ttl).UnixMilli()), Member: t.member(l)})
			p.ZRemRangeByScore(ctx, k, "-inf", strconv.FormatInt(now.UnixMilli(), 10))
			p.PExpire(ctx, k, ttl)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i, l := range routes {
		if adds[i].Val() > 0 {
			added = append(added, l)
		}
	}
	t.confirm(routes)
	return added, nil
}

// confirm notes that the routes were written, unless their connections have ended.
func (t *Table) confirm(routes []local) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range routes {
		if _, ok := t.mine[l]; ok {
			t.mine[l] = true
		}
	}
}

// rewrite writes all routes, then sets the liveness key. It asks first whether Redis
// answers: a write on a broken path may arrive much later, when the path works
// again, and restore routes that were removed meanwhile.
func (t *Table) rewrite(ctx context.Context) {
	asking, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := t.opts.Redis.Ping(asking).Err(); err != nil {
		t.writeFailed(ctx, err)
		return
	}
	t.mu.Lock()
	// Cleared before the list is made: a later Add writes its route itself.
	t.incomplete = false
	all := make([]local, 0, len(t.mine))
	for l := range t.mine {
		all = append(all, l)
	}
	t.mu.Unlock()
	for part := range slices.Chunk(all, maxTogether) {
		if _, err := t.write(ctx, part); err != nil {
			t.writeFailed(ctx, err)
			return
		}
	}
	wctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := t.opts.Redis.Set(wctx, t.livenessKey(t.opts.Instance), "1", livenessTTL).Err(); err != nil {
		t.writeFailed(ctx, err)
		return
	}
	t.mu.Lock()
	t.expired = time.Time{}
	t.mu.Unlock()
	if len(all) > 0 {
		t.opts.Missed()
	}
}

// renew writes as many routes again as are due in an interval. If one of them was
// lost, all are written now; if one cannot be written, all are written next.
func (t *Table) renew(ctx context.Context, interval time.Duration) {
	for part := range slices.Chunk(t.due(interval), maxTogether) {
		added, err := t.write(ctx, part)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			t.writeFailed(ctx, err)
			return
		case len(added) > 0:
			t.lost.Add(float64(len(added)))
			t.opts.Logger.Warn("redis lost routes", "at_least", len(added))
			t.markIncomplete()
			t.rewrite(ctx)
			return
		}
	}
}

// due takes the routes of an interval from the queue, and puts those that are still
// there at its end. None is due while all are to be written anyway, and one that Add
// is writing now is not lost.
func (t *Table) due(interval time.Duration) []local {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := max(1, share(len(t.mine), interval, t.opts.Heartbeat))
	var due []local
	for range t.queue {
		l := t.queue[0]
		t.queue = t.queue[1:]
		written, ok := t.mine[l]
		if !ok {
			continue
		}
		t.queue = append(t.queue, l)
		if written && !t.incomplete {
			due = append(due, l)
		}
		if n--; n == 0 {
			break
		}
	}
	return due
}

// share is how many of all routes are written again in an interval: all of them in
// half a heartbeat, but at most maxRenewed a second, and all in maxRefresh.
func share(all int, interval, heartbeat time.Duration) int {
	part := func(of int, in time.Duration) int {
		return int((int64(of)*int64(interval) + int64(in) - 1) / int64(in))
	}
	within := min(heartbeat/2, maxRefresh)
	return max(min(part(all, within), part(maxRenewed, time.Second)), part(all, maxRefresh))
}
