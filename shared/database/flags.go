package database

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/msrchat/msrchat/shared/process"
)

const (
	passwordEnv      = "MSRCHAT_MYSQL_PASSWORD"
	passwordFileFlag = "mysql-password-file"
)

// Flags are the command-line flags of a program that uses the database. The
// password comes from the environment or a file, never from a flag.
func Flags() []cli.Flag {
	const category = "MySQL"
	def := Defaults()
	return []cli.Flag{
		&cli.StringFlag{
			Name: "mysql-addr", Value: def.Addr, EnvVars: process.Env("mysql-addr"),
			Usage:    "`HOST:PORT`; of several with commas (the nodes of a Galera cluster) the first that takes writes",
			Category: category,
		},
		&cli.StringFlag{
			Name: "mysql-user", Value: def.User, EnvVars: process.Env("mysql-user"),
			Usage: "user `NAME`", Category: category,
		},
		&cli.StringFlag{
			Name: "mysql-database", Value: def.Name, EnvVars: process.Env("mysql-database"),
			Usage: "database `NAME`", Category: category,
		},
		&cli.StringFlag{
			Name: passwordFileFlag, EnvVars: process.Env(passwordFileFlag),
			Usage: "`FILE` with the password (else the environment variable " + passwordEnv + ")", Category: category,
		},
		&cli.BoolFlag{
			Name: "mysql-tls", EnvVars: process.Env("mysql-tls"),
			Usage: "encrypt the connections and verify the server's certificate", Category: category,
		},
		&cli.StringFlag{
			Name: "mysql-tls-ca", EnvVars: process.Env("mysql-tls-ca"),
			Usage: "`FILE` with the certificates to verify it against, instead of the system's", Category: category,
		},
		&cli.StringFlag{
			Name: "mysql-tls-server-name", EnvVars: process.Env("mysql-tls-server-name"),
			Usage: "`NAME` in the certificate, if it is not the address", Category: category,
		},
		&cli.IntFlag{
			Name: "mysql-max-open", Value: def.MaxOpen, EnvVars: process.Env("mysql-max-open"),
			Usage: "largest `NUMBER` of connections", Category: category,
		},
		&cli.IntFlag{
			Name: "mysql-max-idle", Value: def.MaxIdle, EnvVars: process.Env("mysql-max-idle"),
			Usage: "`NUMBER` of idle connections kept", Category: category,
		},
		&cli.DurationFlag{
			Name: "mysql-idle-time", Value: def.IdleTime, EnvVars: process.Env("mysql-idle-time"),
			Usage: "close a connection that was idle for this `DURATION`", Category: category,
		},
	}
}

// FromCLI reads the flags and the password.
func FromCLI(c *cli.Context) (Config, error) {
	cfg := Config{
		Addr: c.String("mysql-addr"), User: c.String("mysql-user"), Name: c.String("mysql-database"),
		Password: os.Getenv(passwordEnv), MaxOpen: c.Int("mysql-max-open"), MaxIdle: c.Int("mysql-max-idle"),
		IdleTime: c.Duration("mysql-idle-time"),
		TLS:      c.Bool("mysql-tls"), CAFile: c.String("mysql-tls-ca"), ServerName: c.String("mysql-tls-server-name"),
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

// Environ is the configuration as environment variables for a child process that
// takes the same flags.
func Environ(c Config) []string {
	return []string{
		"MSRCHAT_MYSQL_ADDR=" + c.Addr, "MSRCHAT_MYSQL_USER=" + c.User, "MSRCHAT_MYSQL_DATABASE=" + c.Name,
		passwordEnv + "=" + c.Password, "MSRCHAT_MYSQL_PASSWORD_FILE=",
		"MSRCHAT_MYSQL_TLS=" + strconv.FormatBool(c.TLS), "MSRCHAT_MYSQL_TLS_CA=" + c.CAFile,
		"MSRCHAT_MYSQL_TLS_SERVER_NAME=" + c.ServerName,
	}
}

// Validate says what is wrong with a configuration before anything is dialled.
func (c Config) Validate() error {
	switch {
	case c.Addr == "":
		return fmt.Errorf("the MySQL address is empty; set --mysql-addr")
	case slices.Contains(strings.Split(c.Addr, ","), ""):
		return fmt.Errorf("one of the MySQL addresses %q is empty", c.Addr)
	case !c.TLS && (c.CAFile != "" || c.ServerName != ""):
		return fmt.Errorf("--mysql-tls-ca and --mysql-tls-server-name need --mysql-tls")
	case c.User == "" || c.Name == "":
		return fmt.Errorf("the MySQL user or database is empty")
	case c.MaxOpen < 0 || c.MaxIdle < 0 || c.IdleTime < 0:
		return fmt.Errorf("the MySQL pool sizes must not be negative")
	case c.IdleTime > 24*time.Hour:
		return fmt.Errorf("the MySQL idle time of %s is over a day", c.IdleTime)
	}
	return nil
}
