// Package database opens MySQL (or MariaDB, one server or a Galera cluster, or TiDB)
// the way every service needs it: a pool that grows under load and closes idle connections, READ COMMITTED, and
// timeouts on everything.
package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/msrchat/msrchat/shared/retry"
)

// Config says where the database is and how large the pool may grow. Start from
// Defaults; zero sizes and times mean the defaults too.
type Config struct {
	// Addr is host:port, or several with commas. Of several, connections go to the
	// first that takes writes, and stay there until it does not: they are the nodes of
	// a Galera cluster, or a primary and what may take its place.
	Addr     string
	User     string
	Name     string
	Password string
	// TLS encrypts the connections and verifies the server's certificate: against the
	// certificates of CAFile instead of the system's if it is set, and for ServerName
	// instead of the address.
	TLS                bool
	CAFile, ServerName string
	// MaxOpen bounds connections in use, MaxIdle those kept; an idle one is
	// closed after IdleTime.
	MaxOpen  int
	MaxIdle  int
	IdleTime time.Duration
}

// The pool for one service on a small machine: commits are few and large, so ten
// connections carry tens of thousands of messages a second.
const (
	DefaultMaxOpen  = 16
	DefaultMaxIdle  = 4
	DefaultIdleTime = time.Minute
)

// Defaults is the local fleet's database, without the password.
func Defaults() Config {
	return Config{
		Addr: "127.0.0.1:7720", User: "msrchat", Name: "msrchat",
		MaxOpen: DefaultMaxOpen, MaxIdle: DefaultMaxIdle, IdleTime: DefaultIdleTime,
	}
}

// The limits of one exchange. After ioTimeout the outcome of a statement is
// unknown.
const (
	dialTimeout = 3 * time.Second
	ioTimeout   = 15 * time.Second
)

// Open returns a pool and checks with one ping that the database answers.
func Open(ctx context.Context, cfg Config) (*sql.DB, error) {
	connector, err := newConnector(cfg)
	if err != nil {
		return nil, fmt.Errorf("database configuration: %w", err)
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(orDefault(cfg.MaxOpen, DefaultMaxOpen))
	db.SetMaxIdleConns(orDefault(cfg.MaxIdle, DefaultMaxIdle))
	db.SetConnMaxIdleTime(orDefault(cfg.IdleTime, DefaultIdleTime))
	if err := db.PingContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("database %s: %w", cfg.Addr, err), db.Close())
	}
	return db, nil
}

func orDefault[T int | time.Duration](v, def T) T {
	if v > 0 {
		return v
	}
	return def
}

// OpenWait is Open for a service that starts together with its database: it
// tries again every second until the database answers or ctx ends.
func OpenWait(ctx context.Context, cfg Config, log *slog.Logger) (*sql.DB, error) {
	for {
		db, err := Open(ctx, cfg)
		if err == nil {
			return db, nil
		}
		log.Warn("waiting for the database", "addr", cfg.Addr, "err", err)
		if !retry.Sleep(ctx, time.Second) {
			return nil, err
		}
	}
}
