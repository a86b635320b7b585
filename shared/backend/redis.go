package backend

import (
	"context"
	"strconv"

	"github.com/msrchat/msrchat/shared/cache"
)

// RedisFiles says where a server keeps what.
type RedisFiles struct {
	// Dir has the append-only file.
	Dir string
	// Port on loopback; 0 takes a free one.
	Port int
	// Config is a file with further settings, such as a password; "" for none.
	Config string
}

// Redis is a server that keeps an append-only file, so that it has its data again
// after a restart. Ready asks without a password.
func Redis(files RedisFiles) (p Program, err error) {
	if p.Path, err = Locate("redis-server"); err != nil {
		return p, err
	}
	if files.Port == 0 {
		if files.Port, err = PickPort(); err != nil {
			return p, err
		}
	}
	addr := Address(files.Port)
	p.Name, p.Addr = "redis-server", addr
	if files.Config != "" {
		p.Args = []string{files.Config} // has to be the first
	}
	p.Args = append(p.Args,
		"--bind", "127.0.0.1", "--port", strconv.Itoa(files.Port), "--dir", files.Dir, "--appendonly", "yes",
		"--save", "", "--maxmemory-policy", "noeviction",
	)
	p.Ready = func(ctx context.Context) error {
		c, err := cache.Open(cache.Config{Addrs: []string{addr}})
		if err != nil {
			return err
		}
		defer c.Close()
		return c.Ping(ctx).Err()
	}
	return p, nil
}
