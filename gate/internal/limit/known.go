package limit

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"
)

// knownFor is how long a network stays known: as long as a log-in lasts.
const knownFor = 90 * 24 * time.Hour

// Known remembers in Redis from which networks the owner of an account has logged
// in. Those are spared the limits that anybody can use up for somebody else. What
// Redis forgets costs an owner that privilege until the next log-in. It is safe for
// concurrent use.
type Known struct{ rdb redis.UniversalClient }

// NewKnown returns what Redis remembers.
func NewKnown(rdb redis.UniversalClient) *Known { return &Known{rdb} }

// Add remembers a network that a log-in with the right password came from.
func (k *Known) Add(ctx context.Context, account, network string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), exchange)
	defer cancel()
	_ = k.rdb.Set(ctx, redisKey("known", network+" "+account), 1, knownFor).Err() // see Known
}

// Has says whether a network is known. Without Redis none is.
func (k *Known) Has(ctx context.Context, account, network string) bool {
	ctx, cancel := context.WithTimeout(ctx, exchange)
	defer cancel()
	n, err := k.rdb.Exists(ctx, redisKey("known", network+" "+account)).Result()
	return err == nil && n > 0
}
