package cache_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/redis/go-redis/v9"
	"github.com/urfave/cli/v2"

	"github.com/msrchat/msrchat/shared/cache"
	"github.com/msrchat/msrchat/shared/testenv"
)

func parse(t *testing.T, args ...string) (cache.Config, error) {
	t.Helper()
	var cfg cache.Config
	app := &cli.App{Flags: cache.Flags(), Action: func(c *cli.Context) (err error) {
		cfg, err = cache.FromCLI(c)
		return err
	}}
	err := app.RunContext(t.Context(), append([]string{"test"}, args...))
	return cfg, err
}

func TestFlags(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("from file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	defaults := cache.Config{
		Addrs: []string{"127.0.0.1:7721"}, Prefix: "msrchat:", PoolSize: 32, MaxIdle: 8,
		IdleTime: time.Minute, Timeout: 500 * time.Millisecond,
	}
	with := func(change func(*cache.Config)) cache.Config {
		c := defaults
		change(&c)
		return c
	}
	for _, tc := range []struct {
		name, env string
		args      []string
		want      cache.Config
		wantErr   string
	}{
		{name: "defaults", want: defaults},
		{
			name: "password from the environment", env: "s3cret",
			want: with(func(c *cache.Config) { c.Password = "s3cret" }),
		},
		{
			name: "password from a file", env: "s3cret", args: []string{"--redis-password-file", secret},
			want: with(func(c *cache.Config) { c.Password = "from file" }),
		},
		{
			name: "cluster with commas", args: []string{"--redis-addr", "a:1,b:2", "--redis-addr", "c:3"},
			want: with(func(c *cache.Config) { c.Addrs = []string{"a:1", "b:2", "c:3"} }),
		},
		{
			name: "certificates", args: []string{
				"--redis-tls", "--redis-tls-ca", "ca.pem", "--redis-tls-server-name", "r.example.org",
				"--redis-prefix", "two:",
			},
			want: with(func(c *cache.Config) {
				c.TLS, c.CAFile, c.ServerName, c.Prefix = true, "ca.pem", "r.example.org", "two:"
			}),
		},
		{name: "certificates not used", args: []string{"--redis-tls-ca", "ca.pem"}, wantErr: "need --redis-tls"},
		{name: "no port", args: []string{"--redis-addr", "localhost"}, wantErr: "host:port"},
		{name: "empty", args: []string{"--redis-addr", ""}, wantErr: "host:port"},
		{name: "negative", args: []string{"--redis-pool-size", "-1"}, wantErr: "negative"},
		{name: "no such file", args: []string{"--redis-password-file", secret + "x"}, wantErr: "--redis-password-file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Setenv("MSRCHAT_REDIS_PASSWORD", tc.env)
			got, err := parse(t, tc.args...)
			if tc.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tc.wantErr) {
					t.Fatalf("error %v, want one with %q", err, tc.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("config (-want +got):\n%s", diff)
			}
		})
	}
}

func open(t *testing.T, cfg cache.Config) redis.UniversalClient {
	t.Helper()
	client, err := cache.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func TestThePoolGrowsAndLetsGo(t *testing.T) {
	client := open(t,
		cache.Config{Addrs: []string{testenv.StartRedis(t).Addr}, PoolSize: 20, MaxIdle: 3, Timeout: 5 * time.Second})
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			// A blocking command holds its connection.
			if err := client.BLPop(context.Background(), time.Second, "empty").Err(); !errors.Is(err, redis.Nil) {
				t.Errorf("blpop: %v", err)
			}
		})
	}
	eventually(t, "20 connections in use", func() bool { return client.PoolStats().TotalConns == 20 })
	wg.Wait()
	// Two that end in the same instant may both see room for one more. The pool
	// closes the surplus with the next exchanges, one at each.
	eventually(t, "at most 3 connections left", func() bool {
		if err := client.Ping(t.Context()).Err(); err != nil {
			t.Errorf("ping afterwards: %v", err)
		}
		return client.PoolStats().TotalConns <= 3
	})

	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(cache.Metrics(client))
	if n, err := testutil.GatherAndCount(reg); err != nil || n != 8 {
		t.Errorf("%d metrics, %v; want 8", n, err)
	}
}

// Calls to a Redis that is dead or hangs fail quickly, and the same client works
// again once it is back.
func TestAnOutageIsShortForItsCallers(t *testing.T) {
	server := testenv.StartRedis(t)
	client := open(t, cache.Config{Addrs: []string{server.Addr}, Timeout: 200 * time.Millisecond})
	ping := func() error { return client.Ping(t.Context()).Err() }
	if err := ping(); err != nil {
		t.Fatal(err)
	}
	quickly := func(what string) {
		t.Helper()
		started := time.Now()
		if err := ping(); err == nil {
			t.Errorf("%s: ping succeeded", what)
		}
		if took := time.Since(started); took > 2*time.Second {
			t.Errorf("%s: took %v", what, took)
		}
	}
	server.Signal(t, syscall.SIGSTOP)
	quickly("hanging")
	server.Signal(t, syscall.SIGCONT)
	eventually(t, "an answer after the hang", func() bool { return ping() == nil })
	server.Kill()
	quickly("dead")
	server.Start(t)
	eventually(t, "an answer after the restart", func() bool { return ping() == nil })
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); <-tick.C {
		if ok() {
			return
		}
	}
	t.Fatalf("never saw: %s", what)
}

// A new connection has to be ready within the timeout of the exchange that opened
// it, so it sends nothing that it can do without.
func TestConnectionIsReadyAfterOneExchange(t *testing.T) {
	addr := testenv.StartRedis(t).Addr
	open := func() redis.UniversalClient {
		client, err := cache.Open(cache.Config{Addrs: []string{addr}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = client.Close() })
		return client
	}
	if err := open().ConfigResetStat(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	// A Redis before 7.2 counts what it does not know as an error.
	stats, err := open().Info(t.Context(), "commandstats", "errorstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(stats, "cmdstat_hello:calls=1,") || strings.Contains(stats, "setinfo") ||
		strings.Contains(stats, "errorstat_") {
		t.Errorf("a connection began with:\n%s", stats)
	}
}
