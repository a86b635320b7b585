package testenv

import (
	"context"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/msrchat/msrchat/shared/backend"
	"github.com/msrchat/msrchat/shared/cache"
)

// redisEnv chooses the Redis of the tests: nothing for a server that they start,
// "cluster" for a Redis Cluster that they start, or the addresses of one that runs
// (several with commas are seeds of a cluster).
const redisEnv = "MSRCHAT_TEST_REDIS"

// RedisServer is a real server of a test.
type RedisServer struct{ *Process }

func redisProgram(dir string) (backend.Program, error) {
	return backend.Redis(backend.RedisFiles{Dir: dir})
}

// StartRedis starts an empty server that ends with the test, to be killed and
// restarted. It skips the test if another Redis is to be tested.
func StartRedis(t testing.TB) *RedisServer {
	t.Helper()
	if engine := os.Getenv(redisEnv); engine != "" {
		t.Skipf("not run: it stops its Redis, and %s is %q", redisEnv, engine)
	}
	return &RedisServer{start(t, redisProgram)}
}

// Config is where the server is.
func (s *RedisServer) Config() cache.Config { return cache.Config{Addrs: []string{s.Addr}} }

// clusterTimeout is the node timeout of clusters that no test harms.
const clusterTimeout = 5 * time.Second

// Redis is an empty Redis for a test: one of its own, or its own keys in one that
// runs already.
func Redis(t testing.TB) cache.Config {
	t.Helper()
	switch engine := os.Getenv(redisEnv); engine {
	case "":
		return StartRedis(t).Config()
	case "cluster":
		return StartRedisCluster(t, clusterTimeout).Config()
	default:
		cfg := cache.Config{Addrs: strings.Split(engine, ","), Prefix: unique(t) + ":"}
		t.Cleanup(func() { EmptyRedis(t, cfg) })
		return cfg
	}
}

// OpenRedis opens a Redis for the length of a test.
func OpenRedis(t testing.TB, cfg cache.Config) redis.UniversalClient {
	t.Helper()
	client, err := cache.Open(cfg)
	must(t, err)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// RedisKeys lists the keys of a test whose names, after the prefix, have a pattern.
func RedisKeys(t testing.TB, cfg cache.Config, pattern string) (keys []string) {
	t.Helper()
	var mu sync.Mutex // owns keys
	eachPrimary(t, cfg, func(ctx context.Context, r redis.Cmdable) error {
		mu.Lock()
		defer mu.Unlock()
		found := r.Scan(ctx, 0, prefix(cfg)+pattern, 1000).Iterator()
		for found.Next(ctx) {
			keys = append(keys, found.Val())
		}
		return found.Err()
	})
	return keys
}

// EmptyRedis takes away all keys of a test at once, as if Redis had lost them.
func EmptyRedis(t testing.TB, cfg cache.Config) {
	t.Helper()
	eachPrimary(t, cfg, func(ctx context.Context, r redis.Cmdable) error {
		if cfg.Prefix == "" {
			return r.FlushAll(ctx).Err()
		}
		found := r.Scan(ctx, 0, prefix(cfg)+"*", 1000).Iterator()
		for found.Next(ctx) {
			if err := r.Del(ctx, found.Val()).Err(); err != nil {
				return err
			}
		}
		return found.Err()
	})
}

func prefix(cfg cache.Config) string {
	if cfg.Prefix == "" {
		return cache.DefaultPrefix
	}
	return cfg.Prefix
}

// eachPrimary calls do with the server, or with every primary of a cluster at once.
func eachPrimary(t testing.TB, cfg cache.Config, do func(context.Context, redis.Cmdable) error) {
	t.Helper()
	cfg.Prefix = "" // the bare client
	client, err := cache.Open(cfg)
	must(t, err)
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	if cluster, ok := client.(*redis.ClusterClient); ok {
		must(t, cluster.ForEachMaster(ctx, func(ctx context.Context, r *redis.Client) error { return do(ctx, r) }))
		return
	}
	must(t, do(ctx, client))
}
