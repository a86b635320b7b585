package arena

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/redis/go-redis/v9"

	"github.com/msrchat/msrchat/shared/cache"
	"github.com/msrchat/msrchat/shared/database"
	"github.com/msrchat/msrchat/shared/discovery"
	"github.com/msrchat/msrchat/shared/schema"
	"github.com/msrchat/msrchat/shared/testenv"
)

const databaseName = "msrchat"

// startLimit bounds every wait at the start, on a busy machine.
const startLimit = 90 * time.Second

// startBackends starts MariaDB with the schema, Redis and Consul.
func (a *Arena) startBackends(ctx, life context.Context) error {
	for _, start := range []func(ctx, life context.Context) error{a.startConsul, a.startRedis, a.startMariaDB} {
		if err := start(ctx, life); err != nil {
			return err
		}
	}
	for what, ready := range map[string]func(context.Context) error{
		"Redis": a.redisReady, "Consul": a.consulReady, "MariaDB": a.migrate,
	} {
		if err := until(ctx, what, ready); err != nil {
			return err
		}
	}
	return nil
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

func (a *Arena) startMariaDB(ctx, life context.Context) error {
	daemon, err := testenv.Locate("mariadbd")
	if err != nil {
		return err
	}
	install, err := testenv.Locate("mariadb-install-db")
	if err != nil {
		return err
	}
	if a.mysql, err = local(); err != nil {
		return err
	}
	home := filepath.Join(a.dir, "mysql")
	a.Disk = mount(home)
	data := filepath.Join(home, "data")
	user := fmt.Sprintf("--user=#%d", os.Getuid())
	if os.Getuid() == 0 {
		user = "--user=root"
	}
	// A server that starts removes all temporary tables of the folder, those of
	// another server as well.
	tmp := filepath.Join(a.dir, "tmp")
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return err
	}
	making := exec.CommandContext(ctx, install, user, "--no-defaults", "--datadir="+data, "--skip-test-db",
		"--auth-root-authentication-method=normal", "--skip-name-resolve")
	making.Env = append(os.Environ(), "TMPDIR="+tmp)
	out, err := making.CombinedOutput()
	if err != nil {
		return fmt.Errorf("mariadb-install-db: %w\n%s", err, out)
	}
	host, port, err := net.SplitHostPort(a.mysql)
	if err != nil {
		return err
	}
	a.start(life, &Process{Kind: "mysql", Name: "mysql", path: daemon, args: []string{
		"--no-defaults", user, "--datadir=" + data, "--tmpdir=" + tmp, "--bind-address=" + host, "--port=" + port,
		"--socket=" + filepath.Join(a.dir, "mysql.sock"), "--pid-file=" + filepath.Join(a.dir, "mysql.pid"),
		"--innodb-flush-log-at-trx-commit=1", "--skip-log-bin", "--max-connections=500",
		"--character-set-server=utf8mb4", "--collation-server=utf8mb4_bin", "--skip-name-resolve",
		"--innodb-buffer-pool-size=256M", "--innodb-log-file-size=64M",
	}})
	return nil
}

// migrate makes the database and its tables.
func (a *Arena) migrate(ctx context.Context) error {
	root := a.Database()
	root.Name = "mysql"
	server, err := database.Open(ctx, root)
	if err != nil {
		return err
	}
	defer server.Close()
	if _, err := server.ExecContext(ctx, "CREATE DATABASE IF NOT EXISTS "+databaseName); err != nil {
		return err
	}
	db, err := database.Open(ctx, a.Database())
	if err != nil {
		return err
	}
	defer db.Close()
	return schema.Migrate(ctx, db, slog.New(slog.DiscardHandler))
}

func (a *Arena) mariaDBReady(ctx context.Context) error {
	db, err := database.Open(ctx, a.Database())
	if err != nil {
		return err
	}
	return db.Close()
}

func (a *Arena) startRedis(_, life context.Context) error {
	path, err := testenv.Locate("redis-server")
	if err != nil {
		return err
	}
	if a.redis, err = local(); err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(a.redis)
	if err != nil {
		return err
	}
	dir := filepath.Join(a.dir, "redis")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	a.Clock = newClock(a.dir)
	a.start(life, &Process{Kind: "redis", Name: "redis", path: path, env: a.Clock.environ(), args: []string{
		"--bind", host, "--port", port, "--dir", dir, "--appendonly", "yes", "--save", "", "--maxmemory-policy", "noeviction",
	}})
	return nil
}

func (a *Arena) redisReady(ctx context.Context) error {
	c, err := a.redisClient()
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Ping(ctx).Err()
}

// redisClient is one that keeps its troubles to itself: they are wanted here.
func (a *Arena) redisClient() (redis.UniversalClient, error) {
	return cache.Open(cache.Config{Addrs: []string{a.redis}})
}

// Flush empties Redis.
func (a *Arena) Flush(ctx context.Context) error {
	c, err := a.redisClient()
	if err != nil {
		return err
	}
	defer c.Close()
	return c.FlushAll(ctx).Err()
}

const consulConfig = `
server = true
bootstrap_expect = 1
node_name = "arena"
data_dir = %q
bind_addr = "127.0.0.1"
client_addr = "127.0.0.1"
disable_update_check = true
leave_on_terminate = false
performance { raft_multiplier = 1 }
ports { http = %s  server = %s  serf_lan = %s  serf_wan = -1  dns = -1  grpc = -1  grpc_tls = -1 }
`

func (a *Arena) startConsul(_, life context.Context) error {
	path, err := testenv.Locate("consul")
	if err != nil {
		return err
	}
	var ports [3]string
	for i := range ports {
		addr, err := local()
		if err != nil {
			return err
		}
		if _, ports[i], err = net.SplitHostPort(addr); err != nil {
			return err
		}
	}
	a.consul = net.JoinHostPort("127.0.0.1", ports[0])
	// One client for all: each has connections of its own, and Consul bounds them.
	if a.catalog, err = discovery.NewClient(a.consul); err != nil {
		return err
	}
	file := filepath.Join(a.dir, "consul.hcl")
	text := fmt.Sprintf(consulConfig, filepath.Join(a.dir, "consul"), ports[0], ports[1], ports[2])
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return err
	}
	a.start(life, &Process{Kind: "consul", Name: "consul", path: path, args: []string{"agent", "-config-file=" + file}})
	return nil
}

func (a *Arena) consulReady(ctx context.Context) error {
	q := (&api.QueryOptions{}).WithContext(ctx)
	leader, err := a.catalog.Status().LeaderWithQueryOptions(q)
	if err == nil && leader == "" {
		err = errors.New("no leader yet")
	}
	if err != nil {
		return err
	}
	nodes, _, err := a.catalog.Catalog().Nodes(q)
	if err == nil && len(nodes) == 0 {
		err = errors.New("the agent has not registered itself yet")
	}
	return err
}
