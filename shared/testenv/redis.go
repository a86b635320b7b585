package testenv

import (
	"context"
	"os"
	"strconv"
	"testing"

	"github.com/redis/go-redis/v9"
)

// RedisServer is a real server that keeps an append-only file, so that it has
// its data again after a restart.
type RedisServer struct {
	Process
	Addr string
}

// StartRedis starts an empty server that ends with the test.
func StartRedis(t testing.TB) *RedisServer {
	t.Helper()
	path := Find(t, "redis-server")
	dir, err := scratch()
	if err != nil {
		t.Fatal(err)
	}
	port := strconv.Itoa(FreePort(t))
	s := &RedisServer{Addr: "127.0.0.1:" + port}
	s.name, s.path, s.dir = "redis-server", path, dir
	s.args = []string{"--bind", "127.0.0.1", "--port", port, "--dir", dir, "--appendonly", "yes", "--save", "", "--maxmemory-policy", "noeviction"}
	s.ready = func(ctx context.Context) error {
		c := redis.NewClient(&redis.Options{Addr: s.Addr})
		defer c.Close()
		return c.Ping(ctx).Err()
	}
	t.Cleanup(func() {
		s.Kill()
		_ = os.RemoveAll(dir)
	})
	s.Start(t)
	return s
}

// Redis starts an empty server and returns its address.
func Redis(t testing.TB) string {
	t.Helper()
	return StartRedis(t).Addr
}
