package testenv

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/msrchat/msrchat/shared/backend"
	"github.com/msrchat/msrchat/shared/cache"
)

// RedisCluster is a real Redis Cluster of a test: three shards, of a primary and a
// replica each. It keeps nothing on disk but who is in it, so a node that was killed
// comes back empty.
type RedisCluster struct {
	Nodes []*Process
}

const (
	shards   = 3
	replicas = 3
	slots    = 16384
)

// StartRedisCluster starts an empty cluster that ends with the test. A replica takes
// over when its primary has been silent for nodeTimeout, and a second or two more.
func StartRedisCluster(t testing.TB, nodeTimeout time.Duration) *RedisCluster {
	t.Helper()
	c := &RedisCluster{}
	for range shards + replicas {
		c.Nodes = append(c.Nodes, start(t, func(dir string) (backend.Program, error) {
			return redisNode(dir, nodeTimeout)
		}))
	}
	must(t, c.form(context.Background()))
	c.Settle(t)
	return c
}

// redisNode is a node that knows no other yet.
func redisNode(dir string, timeout time.Duration) (p backend.Program, err error) {
	if p, err = redisProgram(dir); err != nil {
		return p, err
	}
	bus, err := backend.PickPort()
	p.Args = append(p.Args,
		"--appendonly", "no", "--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(bus),
		"--cluster-config-file", filepath.Join(dir, "nodes.conf"),
		"--cluster-node-timeout", strconv.FormatInt(timeout.Milliseconds(), 10), "--repl-diskless-sync-delay", "0")
	return p, err
}

// bus is a node's port for the other nodes.
func bus(p *Process) string { return p.Args[slices.Index(p.Args, "--cluster-port")+1] }

// on asks one node.
func on[T any](p *Process, ask func(*redis.Client) (T, error)) (T, error) {
	c := redis.NewClient(&redis.Options{Addr: p.Addr})
	defer c.Close()
	return ask(c)
}

// form makes a cluster of the nodes.
func (c *RedisCluster) form(ctx context.Context) error {
	for i, p := range c.Nodes {
		_, err := on(p, func(r *redis.Client) (_ any, err error) {
			if i < shards {
				err = r.ClusterAddSlotsRange(ctx, i*slots/shards, (i+1)*slots/shards-1).Err()
			}
			if err == nil { // epochs that differ, or the nodes would first settle that
				err = r.Do(ctx, "cluster", "set-config-epoch", i+1).Err()
			}
			host, port, _ := strings.Cut(c.Nodes[0].Addr, ":")
			if err == nil && i > 0 {
				err = r.Do(ctx, "cluster", "meet", host, port, bus(c.Nodes[0])).Err()
			}
			return nil, err
		})
		if err != nil {
			return fmt.Errorf("node %d: %w", i, err)
		}
	}
	for i, p := range c.Nodes[shards:] {
		id, err := on(c.Nodes[i], func(r *redis.Client) (string, error) { return r.Do(ctx, "cluster", "myid").Text() })
		if err != nil {
			return err
		}
		if err := keepTrying(ctx, func() error { // until it has heard of that one
			_, err := on(p, func(r *redis.Client) (string, error) { return r.ClusterReplicate(ctx, id).Result() })
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

// keepTrying calls do until it works, for as long as a program may take to start.
func keepTrying(ctx context.Context, do func() error) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for {
		err := do()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Settle waits until every node runs and says that the cluster is whole, and every
// replica has what its primary has.
func (c *RedisCluster) Settle(t testing.TB) {
	t.Helper()
	must(t, keepTrying(context.Background(), func() error {
		linked := 0
		for _, p := range c.Nodes {
			up, err := nodeReady(p)
			if err != nil {
				return fmt.Errorf("the Redis node %s: %w", p.Addr, err)
			}
			linked += up
		}
		if linked != replicas {
			return fmt.Errorf("%d of %d replicas are in step", linked, replicas)
		}
		return nil
	}))
}

// nodeReady says whether a node sees a whole cluster, and counts a replica in step.
func nodeReady(p *Process) (replica int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return on(p, func(r *redis.Client) (int, error) {
		info, err := r.ClusterInfo(ctx).Result()
		if err != nil {
			return 0, err
		}
		for _, want := range []string{
			"cluster_state:ok", fmt.Sprintf("cluster_slots_ok:%d", slots),
			fmt.Sprintf("cluster_known_nodes:%d", shards+replicas),
		} {
			if !strings.Contains(info, want) {
				return 0, fmt.Errorf("not %s", want)
			}
		}
		role, err := r.Info(ctx, "replication").Result()
		return strings.Count(role, "master_link_status:up"), err
	})
}

// Whole says that the cluster serves all slots, whichever of its nodes run.
func (c *RedisCluster) Whole() bool {
	for _, p := range c.Nodes {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		info, err := on(p, func(r *redis.Client) (string, error) { return r.ClusterInfo(ctx).Result() })
		cancel()
		if err == nil && !strings.Contains(info, fmt.Sprintf("cluster_slots_ok:%d", slots)) {
			return false
		}
	}
	return true
}

// Config is where the cluster is.
func (c *RedisCluster) Config() cache.Config {
	cfg := cache.Config{Cluster: true}
	for _, p := range c.Nodes {
		cfg.Addrs = append(cfg.Addrs, p.Addr)
	}
	return cfg
}

// Primary is the node that has a key.
func (c *RedisCluster) Primary(t testing.TB, key string) *Process {
	t.Helper()
	var found *Process
	must(t, keepTrying(context.Background(), func() (err error) {
		found, err = c.primary(context.Background(), key)
		return err
	}))
	return found
}

func (c *RedisCluster) primary(ctx context.Context, key string) (*Process, error) {
	for _, p := range c.Nodes {
		held, err := on(p, func(r *redis.Client) (bool, error) {
			role, err := r.Info(ctx, "replication").Result()
			if err != nil || !strings.Contains(role, "role:master") {
				return false, err
			}
			err = r.Exists(ctx, key).Err() // MOVED, if another one has it
			return err == nil, nil
		})
		if err == nil && held {
			return p, nil
		}
	}
	return nil, errors.New("no primary has the slot of " + key)
}

// Empty empties the shard of a primary.
func (c *RedisCluster) Empty(t testing.TB, primary *Process) {
	t.Helper()
	_, err := on(primary, func(r *redis.Client) (string, error) { return r.FlushAll(context.Background()).Result() })
	must(t, err)
}
