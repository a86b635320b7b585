package route_test

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/msrchat/msrchat/shared/cache"
	"github.com/msrchat/msrchat/shared/testenv"

	"github.com/msrchat/msrchat/chat/internal/route"
)

// A shard of a Redis Cluster loses its data, and the liveness key is in another one.
func TestAShardLosesItsData(t *testing.T) {
	t.Parallel()
	cluster := testenv.StartRedisCluster(t, time.Second)
	const short = 2 * time.Second
	a, b := startBeating(t, cluster.Config(), "a", short), startBeating(t, cluster.Config(), "b", short)
	a.others = []string{"b"}
	a.until(t, "nobody is on b", 1)
	beacon := cluster.Primary(t, cache.DefaultPrefix+"beacon:b")
	user, shard := uint64(1), beacon
	for ; shard == beacon; user++ {
		shard = cluster.Primary(t, fmt.Sprintf("%sroute:%d", cache.DefaultPrefix, user+1))
	}
	b.Add(t.Context(), user, 1)
	before := b.missed.Load()
	cluster.Empty(t, shard)
	at := time.Now()
	testenv.Until(t, "b reports that pushes may be missing", func() bool { return b.missed.Load() > before })
	if took := time.Since(at); took > short/2+short/4 { // half a heartbeat, and a tick
		t.Errorf("noticed after %v, a heartbeat is %v", took, short)
	}
	if got, _ := a.at(t, user); len(got) != 1 {
		t.Errorf("a sends to %v after b's report", got)
	}
	if n := b.missed.Load(); n != before+1 {
		t.Errorf("reported %d times", n-before)
	}
}

// BenchmarkRenew prints what it costs a server of full capacity to keep its routes:
// its own CPU and that of Redis, in percent of a core.
func BenchmarkRenew(b *testing.B) {
	const users = 18_200
	r := testenv.StartRedis(b)
	client := testenv.OpenRedis(b, r.Config())
	table := route.New(route.Options{
		Instance: "a", Redis: client, Heartbeat: heartbeat, Missed: func() {}, Logger: slog.New(slog.DiscardHandler),
	})
	for user := range uint64(users) { // before Run, which writes them all
		table.Add(b.Context(), user+1, user+1)
	}
	ctx, stop := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- table.Run(ctx) }()
	testenv.Until(b, "all are written", func() bool {
		return client.DBSize(b.Context()).Val() == users+1
	})
	for b.Loop() {
		own, redis, at := cpu(b), redisCPU(b, client), time.Now()
		<-time.After(heartbeat)
		wall := time.Since(at).Seconds()
		b.ReportMetric(100*(cpu(b)-own)/wall, "%core")
		b.ReportMetric(100*(redisCPU(b, client)-redis)/wall, "%core-redis")
	}
	stop()
	if err := <-ended; err != nil {
		b.Error(err)
	}
}

// cpu is the time of this process in seconds.
func cpu(b *testing.B) float64 {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// redisCPU is the time of Redis in seconds.
func redisCPU(b *testing.B, client redis.UniversalClient) (seconds float64) {
	b.Helper()
	info, err := client.InfoMap(b.Context(), "cpu").Result()
	if err != nil {
		b.Fatal(err)
	}
	for _, name := range []string{"used_cpu_user", "used_cpu_sys"} {
		n, err := strconv.ParseFloat(info["CPU"][name], 64)
		if err != nil {
			b.Fatal(err)
		}
		seconds += n
	}
	return seconds
}
