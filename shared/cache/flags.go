package cache

import (
	"fmt"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/msrchat/msrchat/shared/process"
)

const (
	passwordEnv      = "MSRCHAT_REDIS_PASSWORD"
	passwordFileFlag = "redis-password-file"
)

// Flags are the command-line flags of a program that uses Redis. The password
// comes from the environment or a file, never from a flag.
func Flags() []cli.Flag {
	const category = "Redis"
	def := Defaults()
	return []cli.Flag{
		&cli.StringSliceFlag{
			Name: "redis-addr", Value: cli.NewStringSlice(def.Addrs...), EnvVars: process.Env("redis-addr"),
			Usage: "`HOST:PORT`; several, repeated or with commas, are seeds of a cluster", Category: category,
		},
		&cli.BoolFlag{
			Name: "redis-cluster", EnvVars: process.Env("redis-cluster"),
			Usage: "a single address is the seed of a cluster", Category: category,
		},
		&cli.BoolFlag{
			Name: "redis-tls", EnvVars: process.Env("redis-tls"),
			Usage: "encrypt the connections and verify the server's certificate", Category: category,
		},
		&cli.StringFlag{
			Name: "redis-tls-ca", EnvVars: process.Env("redis-tls-ca"),
			Usage: "`FILE` with the certificates to verify it against, instead of the system's", Category: category,
		},
		&cli.StringFlag{
			Name: "redis-tls-server-name", EnvVars: process.Env("redis-tls-server-name"),
			Usage: "`NAME` in the certificate, if it is not the address", Category: category,
		},
		&cli.StringFlag{
			Name: "redis-prefix", Value: def.Prefix, EnvVars: process.Env("redis-prefix"),
			Usage: "`TEXT` that begins every key; two systems on one Redis need two", Category: category,
		},
		&cli.StringFlag{
			Name: "redis-user", EnvVars: process.Env("redis-user"),
			Usage: "user `NAME`; empty is the default user", Category: category,
		},
		&cli.StringFlag{
			Name: passwordFileFlag, EnvVars: process.Env(passwordFileFlag),
			Usage: "`FILE` with the password (else the environment variable " + passwordEnv + ")", Category: category,
		},
		&cli.IntFlag{
			Name: "redis-pool-size", Value: def.PoolSize, EnvVars: process.Env("redis-pool-size"),
			Usage: "largest `NUMBER` of connections to a node", Category: category,
		},
		&cli.IntFlag{
			Name: "redis-max-idle", Value: def.MaxIdle, EnvVars: process.Env("redis-max-idle"),
			Usage: "`NUMBER` of idle connections kept", Category: category,
		},
		&cli.DurationFlag{
			Name: "redis-idle-time", Value: def.IdleTime, EnvVars: process.Env("redis-idle-time"),
			Usage: "do not use a connection again that was idle for this `DURATION`", Category: category,
		},
		&cli.DurationFlag{
			Name: "redis-timeout", Value: def.Timeout, EnvVars: process.Env("redis-timeout"),
			Usage: "give up on an exchange after this `DURATION`", Category: category,
		},
	}
}

// FromCLI reads the flags and the password.
func FromCLI(c *cli.Context) (Config, error) {
	cfg := Config{
		Addrs: c.StringSlice("redis-addr"), Cluster: c.Bool("redis-cluster"), TLS: c.Bool("redis-tls"),
		CAFile: c.String("redis-tls-ca"), ServerName: c.String("redis-tls-server-name"),
		Prefix:   c.String("redis-prefix"),
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
