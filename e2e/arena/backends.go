package arena

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/msrchat/msrchat/shared/backend"
	"github.com/msrchat/msrchat/shared/cache"
	"github.com/msrchat/msrchat/shared/database"
	"github.com/msrchat/msrchat/shared/discovery/consul"
	"github.com/msrchat/msrchat/shared/testenv"
)

const databaseName = "msrchat"

// startLimit bounds every wait at the start, on a busy machine.
const startLimit = 90 * time.Second

// startBackends starts MariaDB with the schema, Redis and Consul, in folders of
// their own.
func (a *Arena) startBackends(ctx, life context.Context) (err error) {
	dir := func(name string) string { return filepath.Join(a.dir, name) }
	if a.consul, err = testenv.ConsulProgram(dir("consul")); err != nil {
		return err
	}
	if a.catalog, err = consul.New(a.consul.Addr); err != nil {
		return err
	}
	a.startBackend(life, "consul", a.consul)
	if a.redis, err = backend.Redis(backend.RedisFiles{Dir: dir("redis")}); err != nil {
		return err
	}
	a.Clock = newClock(a.dir)
	a.startBackend(life, "redis", a.redis, a.Clock.environ()...)
	// The small disk is the tables' alone, so the log on it is small, too.
	a.Disk = mount(dir("disk"))
	files := backend.MariaDBFiles{Dir: dir("mysql"), Data: filepath.Join(dir("disk"), "data"), Log: "64M"}
	if a.mysql, err = backend.MariaDB(ctx, files); err != nil {
		return err
	}
	a.startBackend(life, "mysql", a.mysql)
	migrate := func(ctx context.Context) error { return backend.CreateDatabase(ctx, a.Database()) }
	for what, ready := range map[string]func(context.Context) error{
		"Redis": a.redis.Ready, "Consul": a.consul.Ready, "MariaDB": migrate,
	} {
		if err := until(ctx, what, ready); err != nil {
			return err
		}
	}
	return nil
}

// startBackend starts one with additions to its environment.
func (a *Arena) startBackend(life context.Context, kind string, p backend.Program, env ...string) {
	a.start(life, &Process{Kind: kind, Name: kind, path: p.Path, args: p.Args, env: env})
}

// until polls until something works.
func until(ctx context.Context, what string, works func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := works(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("waited for %s: %w", what, err)
		}
	}
}

// Flush empties Redis.
func (a *Arena) Flush(ctx context.Context) error {
	c, err := cache.Open(cache.Config{Addrs: []string{a.redis.Addr}})
	if err != nil {
		return err
	}
	defer c.Close()
	return c.FlushAll(ctx).Err()
}

// Database is the database, bypassing the wires.
func (a *Arena) Database() database.Config { return backend.RootConfig(a.mysql.Addr, databaseName) }
