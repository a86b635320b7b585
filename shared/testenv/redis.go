package testenv

import (
	"context"
	"strconv"
	"testing"

	"github.com/msrchat/msrchat/shared/cache"
)

// RedisProgram is an empty server that keeps an append-only file in dir, so that
// it has its data again after a restart.
func RedisProgram(dir string) (p Program, err error) {
	if p.Path, err = Locate("redis-server"); err != nil {
		return p, err
	}
	port, err := PickPort()
	p.Name, p.Addr = "redis-server", address(port)
	p.Args = []string{
		"--bind", "127.0.0.1", "--port", strconv.Itoa(port), "--dir", dir, "--appendonly", "yes", "--save", "",
		"--maxmemory-policy", "noeviction",
	}
	p.Ready = func(ctx context.Context) error {
		c, err := cache.Open(cache.Config{Addrs: []string{address(port)}})
		if err != nil {
			return err
		}
		defer c.Close()
		return c.Ping(ctx).Err()
	}
	return p, err
}

// RedisServer is a real server of a test.
type RedisServer struct{ *Process }

// StartRedis starts an empty server that ends with the test.
func StartRedis(t testing.TB) *RedisServer {
	t.Helper()
	return &RedisServer{start(t, RedisProgram)}
}

// Redis starts an empty server and returns its address.
func Redis(t testing.TB) string {
	t.Helper()
	return StartRedis(t).Addr
}
