package main

import (
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/msrchat/msrchat/gate"
	"github.com/msrchat/msrchat/shared/cache"
	"github.com/msrchat/msrchat/shared/database"
	"github.com/msrchat/msrchat/shared/discovery/consul"
	"github.com/msrchat/msrchat/shared/process"
)

func flags() []cli.Flag {
	def := gate.Defaults()
	all := append(process.Flags(),
		&cli.StringFlag{
			Name: "status-target", EnvVars: process.Env("status-target"),
			Usage: "gRPC `TARGET` of status instead of consul:///status", Category: "Process",
		},
	)
	all = append(all, httpFlags(def)...)
	all = append(all, database.Flags()...)
	all = append(all, cache.Flags()...)
	all = append(all, smtpFlags(def)...)
	return append(all, accountFlags(def)...)
}

func httpFlags(def gate.Config) []cli.Flag {
	const category = "HTTP"
	return []cli.Flag{
		&cli.StringFlag{
			Name: "http-bind", Value: def.Bind, EnvVars: process.Env("http-bind"),
			Usage: "`HOST:PORT` to listen on", Category: category,
		},
		&cli.StringFlag{
			Name: "http-advertise", EnvVars: process.Env("http-advertise"),
			Usage: "`HOST:PORT` where others reach it (default: as bound)", Category: category,
		},
		&cli.StringFlag{
			Name: "admin-bind", Value: def.AdminBind, EnvVars: process.Env("admin-bind"),
			Usage: "`HOST:PORT` to listen on for operators: /metrics", Category: category,
		},
		&cli.StringSliceFlag{
			Name: "trusted-proxy", EnvVars: process.Env("trusted-proxy"), Category: category,
			Usage: "`CIDR` of proxies whose X-Forwarded-For is believed (repeatable)",
		},
		&cli.DurationFlag{
			Name: "http-idle-timeout", Value: def.HTTP.IdleTimeout, EnvVars: process.Env("http-idle-timeout"),
			Usage: "close a connection after this `DURATION` between requests", Category: category,
		},
		&cli.DurationFlag{
			Name: "drain", Value: def.Drain, EnvVars: process.Env("drain"),
			Usage: "on a stop, take requests for this `DURATION` after /readyz began to fail", Category: category,
		},
	}
}

func smtpFlags(def gate.Config) []cli.Flag {
	const category = "Mail"
	return []cli.Flag{
		&cli.StringFlag{
			Name: "smtp-addr", Value: def.SMTP.Addr, EnvVars: process.Env("smtp-addr"),
			Usage: "`HOST:PORT` of the mail server", Category: category,
		},
		&cli.StringFlag{
			Name: "smtp-from", Value: def.SMTP.From, EnvVars: process.Env("smtp-from"),
			Usage: "sender `ADDRESS`", Category: category,
		},
		&cli.StringFlag{
			Name: "smtp-tls", EnvVars: process.Env("smtp-tls"), Category: category,
			Usage: "`MODE`: none, starttls or tls (default: none for a server on loopback, else starttls)",
		},
		&cli.IntFlag{
			Name: "smtp-queue", Value: def.SMTP.Queue, EnvVars: process.Env("smtp-queue"),
			Usage: "`NUMBER` of mails that may wait", Category: category,
		},
	}
}

func accountFlags(def gate.Config) []cli.Flag {
	const category = "Accounts (limits are COUNT/DURATION, 0 is none)"
	limit := func(name string, value gate.Limit, usage string) cli.Flag {
		return &cli.GenericFlag{Name: name, Value: &value, EnvVars: process.Env(name), Usage: usage, Category: category}
	}
	return []cli.Flag{
		&cli.DurationFlag{
			Name: "session-lifetime", Value: def.SessionLifetime, EnvVars: process.Env("session-lifetime"),
			Usage: "log-ins last for this `DURATION`", Category: category,
		},
		&cli.DurationFlag{
			Name: "code-lifetime", Value: def.Codes.Lifetime, EnvVars: process.Env("code-lifetime"),
			Usage: "codes are valid for this `DURATION`", Category: category,
		},
		&cli.IntFlag{
			Name: "code-tries", Value: def.Codes.Tries, EnvVars: process.Env("code-tries"),
			Usage: "`NUMBER` of wrong codes that invalidate the right one", Category: category,
		},
		&cli.DurationFlag{
			Name: "code-pause", Value: def.Codes.Pause, EnvVars: process.Env("code-pause"),
			Usage: "least `DURATION` between two codes to one address", Category: category,
		},
		&cli.StringFlag{
			Name: "code-secret-file", EnvVars: process.Env("code-secret-file"), Category: category,
			Usage: "`FILE` with a secret that keys the codes' hashes, the same on every gate " +
				"(else the environment variable MSRCHAT_CODE_SECRET)",
		},
		limit("codes-per-address", def.Codes.PerAddress, "`LIMIT` of codes to one address for one IP address"),
		limit("codes-per-address-and-client-long", def.Codes.PerAddressAndClientLong,
			"`LIMIT` of codes to one address for one IP address in the long run"),
		limit("codes-per-address-long", def.Codes.PerAddressLong, "`LIMIT` of codes to one address in the long run"),
		limit("codes-per-client", def.Codes.PerClient, "`LIMIT` of codes requested by one IP address"),
		limit("registrations-per-client", def.LogIns.RegistrationsPerClient,
			"`LIMIT` of attempts to register from one IP address"),
		limit("logins-per-account-and-client", def.LogIns.PerAccountAndClient,
			"`LIMIT` of wrong passwords for one account from one IP address"),
		limit("logins-per-account", def.LogIns.PerAccount, "`LIMIT` of wrong passwords for one account"),
		limit("logins-per-client", def.LogIns.PerClient, "`LIMIT` of wrong passwords from one IP address"),
		&cli.UintFlag{
			Name: "password-memory", Value: uint(def.Passwords.MemoryKiB), EnvVars: process.Env("password-memory"),
			Usage: "`KIB` of memory to hash a password", Category: category,
		},
		&cli.IntFlag{
			Name: "password-passes", Value: def.Passwords.Passes, EnvVars: process.Env("password-passes"),
			Usage: "`NUMBER` of passes to hash a password", Category: category,
		},
		&cli.IntFlag{
			Name: "password-lanes", Value: def.Passwords.Lanes, EnvVars: process.Env("password-lanes"),
			Usage: "`NUMBER` of lanes to hash a password", Category: category,
		},
		&cli.IntFlag{
			Name: "passwords-at-once", EnvVars: process.Env("passwords-at-once"),
			Usage: "`NUMBER` of passwords hashed at the same time; 0: half of the cores", Category: category,
		},
		&cli.IntFlag{
			Name: "passwords-waiting", Value: def.Passwords.Waiting, EnvVars: process.Env("passwords-waiting"),
			Usage: "`NUMBER` of passwords that may wait for their turn", Category: category,
		},
		&cli.DurationFlag{
			Name: "passwords-wait", Value: def.Passwords.Wait, EnvVars: process.Env("passwords-wait"),
			Usage: "a password waits at most this `DURATION` for its turn", Category: category,
		},
	}
}

// config reads the flags and the secrets.
func config(c *cli.Context) (gate.Config, error) {
	cfg := gate.Defaults()
	p := process.FromCLI(c)
	cfg.Instance, cfg.Release, cfg.Zone, cfg.Register = p.Instance, p.Release, p.Zone, p.Register
	cfg.StatusTarget = c.String("status-target")
	cfg.Bind, cfg.Advertise = c.String("http-bind"), c.String("http-advertise")
	cfg.AdminBind = c.String("admin-bind")
	cfg.HTTP.IdleTimeout, cfg.Drain = c.Duration("http-idle-timeout"), c.Duration("drain")
	cfg.Grace += cfg.Drain
	var err error
	if cfg.Catalog, err = consul.New(p.ConsulAddr); err != nil {
		return cfg, err
	}
	if cfg.MySQL, err = database.FromCLI(c); err != nil {
		return cfg, err
	}
	if cfg.Redis, err = cache.FromCLI(c); err != nil {
		return cfg, err
	}
	for _, s := range c.StringSlice("trusted-proxy") {
		if s == "" { // the environment variable is set and empty, as the job has it
			continue
		}
		network, err := netip.ParsePrefix(s)
		if err != nil {
			return cfg, fmt.Errorf("--trusted-proxy %q is not a network such as 10.0.0.0/8", s)
		}
		cfg.TrustedProxies = append(cfg.TrustedProxies, network.Masked())
	}
	cfg.SMTP.Addr, cfg.SMTP.From, cfg.SMTP.TLS = c.String("smtp-addr"), c.String("smtp-from"), c.String("smtp-tls")
	cfg.SMTP.User, cfg.SMTP.Password = os.Getenv("MSRCHAT_SMTP_USER"), os.Getenv("MSRCHAT_SMTP_PASSWORD")
	cfg.SMTP.Queue = c.Int("smtp-queue")
	return cfg, accounts(c, &cfg)
}

func accounts(c *cli.Context, cfg *gate.Config) error {
	cfg.SessionLifetime = c.Duration("session-lifetime")
	cfg.Codes.Lifetime, cfg.Codes.Pause = c.Duration("code-lifetime"), c.Duration("code-pause")
	cfg.Codes.Tries = c.Int("code-tries")
	for name, into := range map[string]*gate.Limit{
		"codes-per-address": &cfg.Codes.PerAddress, "codes-per-address-long": &cfg.Codes.PerAddressLong,
		"codes-per-address-and-client-long": &cfg.Codes.PerAddressAndClientLong,
		"codes-per-client":                  &cfg.Codes.PerClient,
		"registrations-per-client":          &cfg.LogIns.RegistrationsPerClient,
		"logins-per-account-and-client":     &cfg.LogIns.PerAccountAndClient,
		"logins-per-account":                &cfg.LogIns.PerAccount, "logins-per-client": &cfg.LogIns.PerClient,
	} {
		limit, ok := c.Generic(name).(*gate.Limit)
		if !ok {
			return fmt.Errorf("--%s cannot be read", name)
		}
		*into = *limit
	}
	cfg.Codes.Secret = []byte(os.Getenv("MSRCHAT_CODE_SECRET"))
	if file := c.String("code-secret-file"); file != "" {
		secret, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("read --code-secret-file: %w", err)
		}
		cfg.Codes.Secret = []byte(strings.TrimRight(string(secret), "\r\n"))
	}
	p := &cfg.Passwords
	p.MemoryKiB = uint32(min(c.Uint("password-memory"), 1<<31))
	p.Passes, p.Lanes = c.Int("password-passes"), c.Int("password-lanes")
	if n := c.Int("passwords-at-once"); n != 0 {
		p.AtOnce = n
	}
	p.Waiting, p.Wait = c.Int("passwords-waiting"), c.Duration("passwords-wait")
	return nil
}
