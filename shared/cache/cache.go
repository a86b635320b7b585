// Package cache opens Redis the way every service needs it: a pool that grows
// under load and closes idle connections, and timeouts so short that a Redis
// that hangs costs a caller less than asking MySQL does.
//
// Nothing in Redis may be the only copy of anything that matters, and every key
// has an expiry.
package cache

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/msrchat/msrchat/shared/process"
)

// Config says where Redis is and how large the pool may grow. Start from
// Defaults; zero sizes and times mean the defaults too.
type Config struct {
	// Addrs are host:port: one server, or several seeds of a cluster.
	Addrs []string
	// Cluster makes a single address the seed of a cluster.
	Cluster  bool
	Username string
	Password string
	// TLS encrypts the connections and verifies the server's certificate: against the
	// certificates of CAFile instead of the system's if it is set, and for ServerName
	// instead of the address.
	TLS                bool
	CAFile, ServerName string
	// Prefix begins every key; empty is DefaultPrefix.
	Prefix string
	// PoolSize bounds connections, per node of a cluster. Up to MaxIdle are
	// kept (after a burst a few more, until the next exchanges close them); one
	// that was idle for IdleTime is not used again.
	PoolSize int
	MaxIdle  int
	IdleTime time.Duration
	// Timeout bounds one exchange, and separately the wait for a connection.
	Timeout time.Duration
}

// The pool for one service on a small machine: an exchange takes well under a
// millisecond, so 32 connections carry tens of thousands a second.
const (
	DefaultPoolSize = 32
	DefaultMaxIdle  = 8
	DefaultIdleTime = time.Minute
	DefaultTimeout  = 500 * time.Millisecond
)

// Defaults is the local fleet's Redis, without the password.
func Defaults() Config {
	return Config{
		Addrs:    []string{"127.0.0.1:7721"},
		Prefix:   DefaultPrefix,
		PoolSize: DefaultPoolSize,
		MaxIdle:  DefaultMaxIdle,
		IdleTime: DefaultIdleTime,
		Timeout:  DefaultTimeout,
	}
}

// DefaultPrefix begins every key, so that the system can share a Redis. Two systems
// on one Redis need two prefixes.
const DefaultPrefix = "msrchat:"

// Prefix begins every key that is used with a client.
func Prefix(client redis.UniversalClient) string {
	if p, ok := client.(prefixed); ok {
		return p.prefix
	}
	return DefaultPrefix
}

// prefixed is a client with a prefix of its own.
type prefixed struct {
	redis.UniversalClient
	prefix string
}

// Validate says what is wrong with a configuration before anything is dialled.
func (c Config) Validate() error {
	if len(c.Addrs) == 0 {
		return errors.New("the Redis address is empty; set --redis-addr")
	}
	for _, addr := range c.Addrs {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return fmt.Errorf("the Redis address %q is not host:port", addr)
		}
	}
	if !c.TLS && (c.CAFile != "" || c.ServerName != "") {
		return errors.New("--redis-tls-ca and --redis-tls-server-name need --redis-tls")
	}
	if c.PoolSize < 0 || c.MaxIdle < 0 || c.IdleTime < 0 || c.Timeout < 0 {
		return errors.New("the Redis pool sizes and times must not be negative")
	}
	return nil
}

// Open returns a client without dialling: a service that uses a cache starts
// and works without it.
func Open(cfg Config) (redis.UniversalClient, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	silence()
	timeout := orDefault(cfg.Timeout, DefaultTimeout)
	opts := &redis.UniversalOptions{
		Addrs: cfg.Addrs, IsClusterMode: cfg.Cluster,
		Username: cfg.Username, Password: cfg.Password,
		PoolSize:        orDefault(cfg.PoolSize, DefaultPoolSize),
		MaxIdleConns:    orDefault(cfg.MaxIdle, DefaultMaxIdle),
		ConnMaxIdleTime: orDefault(cfg.IdleTime, DefaultIdleTime),
		DialTimeout:     timeout, ReadTimeout: timeout, WriteTimeout: timeout, PoolTimeout: timeout,
		ContextTimeoutEnabled: true,
		// One retry covers a connection that the server closed while it was idle.
		// More, or repeated dials, would only delay the error of an outage.
		MaxRetries: 1, DialerRetries: 1,
		// One round trip less for a new connection. It has to be ready within
		// the timeout of the exchange that opened it; with one more, every
		// connection to a restarted Redis failed on a slow machine.
		DisableIdentity: true,
		// The library's default of 64 KiB per connection is far above our values.
		ReadBufferSize: 8 << 10, WriteBufferSize: 8 << 10,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	if cfg.TLS {
		var err error
		if opts.TLSConfig, err = process.ClientTLS(cfg.CAFile, cfg.ServerName); err != nil {
			return nil, fmt.Errorf("redis: %w", err)
		}
	}
	client := redis.NewUniversalClient(opts)
	if cfg.Prefix != "" {
		client = prefixed{client, cfg.Prefix}
	}
	return client, nil
}

// CheckWritable writes a key that expires, because a Redis that is full, a replica, or
// without its replicas answers a PING and takes nothing.
func CheckWritable(ctx context.Context, client redis.UniversalClient, key string) error {
	return client.Set(ctx, key, 1, time.Minute).Err()
}

// silence switches off what go-redis prints to stderr, a line for every dial
// that fails: the caller gets the error, counts it and logs it once. The library
// has one logger for the process.
var silence = sync.OnceFunc(logging.Disable)

func orDefault[T int | time.Duration](v, def T) T {
	if v > 0 {
		return v
	}
	return def
}
