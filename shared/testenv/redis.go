package testenv

import (
	"testing"

	"github.com/msrchat/msrchat/shared/backend"
)

// RedisServer is a real server of a test.
type RedisServer struct{ *Process }

// StartRedis starts an empty server that ends with the test.
func StartRedis(t testing.TB) *RedisServer {
	t.Helper()
	return &RedisServer{start(t, redisProgram)}
}

// Redis starts an empty server and returns its address.
func Redis(t testing.TB) string {
	t.Helper()
	return StartRedis(t).Addr
}

func redisProgram(dir string) (backend.Program, error) {
	return backend.Redis(backend.RedisFiles{Dir: dir})
}
