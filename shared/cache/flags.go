package cache

import (
	"fmt"
	"os"
	"strings"

	"github.com/urfave/cli/v2"
)

const (
	passwordEnv      = "MSRCHAT_REDIS_PASSWORD"
	passwordFileFlag = "redis-password-file"
)

// Flags are the command-line flags of a program that uses Redis. The password
// comes from the environment or a file, never from a flag.
func Flags() []cli.Flag {
	const category = "Redis"
	return []cli.Flag{
		&cli.StringSliceFlag{
			Name: "redis-addr", Value: cli.NewStringSlice("127.0.0.1:7721"), EnvVars: []string{"MSRCHAT_REDIS_ADDR"},
			Usage: "`HOST:PORT`; several, repeated or with commas, are seeds of a cluster", Category: category,
		},
		&cli.BoolFlag{Name: "redis-cluster", EnvVars: []string{"MSRCHAT_REDIS_CLUSTER"}, Usage: "a single address is the seed of a cluster", Category: category},
		&cli.BoolFlag{Name: "redis-tls", EnvVars: []string{"MSRCHAT_REDIS_TLS"}, Usage: "encrypt the connections", Category: category},
		&cli.StringFlag{Name: "redis-user", EnvVars: []string{"MSRCHAT_REDIS_USER"}, Usage: "user `NAME`; empty is the default user", Category: category},
		&cli.StringFlag{
			Name: passwordFileFlag, EnvVars: []string{"MSRCHAT_REDIS_PASSWORD_FILE"},
			Usage: "`FILE` with the password (else the environment variable " + passwordEnv + ")", Category: category,
		},
		&cli.IntFlag{Name: "redis-pool-size", Value: DefaultPoolSize, EnvVars: []string{"MSRCHAT_REDIS_POOL_SIZE"}, Usage: "largest `NUMBER` of connections to a node", Category: category},
		&cli.IntFlag{Name: "redis-max-idle", Value: DefaultMaxIdle, EnvVars: []string{"MSRCHAT_REDIS_MAX_IDLE"}, Usage: "`NUMBER` of idle connections kept", Category: category},
		&cli.DurationFlag{
			Name: "redis-idle-time", Value: DefaultIdleTime, EnvVars: []string{"MSRCHAT_REDIS_IDLE_TIME"},
			Usage: "do not use a connection again that was idle for this `DURATION`", Category: category,
		},
		&cli.DurationFlag{
			Name: "redis-timeout", Value: DefaultTimeout, EnvVars: []string{"MSRCHAT_REDIS_TIMEOUT"},
			Usage: "give up on an exchange after this `DURATION`", Category: category,
		},
	}
}

// FromCLI reads the flags and the password.
func FromCLI(c *cli.Context) (Config, error) {
	cfg := Config{
		Addrs: c.StringSlice("redis-addr"), Cluster: c.Bool("redis-cluster"), TLS: c.Bool("redis-tls"),
		Username: c.String("redis-user"), Password: os.Getenv(passwordEnv),
		PoolSize: c.Int("redis-pool-size"), MaxIdle: c.Int("redis-max-idle"),
		IdleTime: c.Duration("redis-idle-time"), Timeout: c.Duration("redis-timeout"),
	}
	if file := c.String(passwordFileFlag); file != "" {
		secret, err := os.ReadFile(file)
		if err != nil {
			return Config{}, fmt.Errorf("read --%s: %w", passwordFileFlag, err)
		}
		cfg.Password = strings.TrimRight(string(secret), "\r\n")
	}
	return cfg, cfg.Validate()
}
