// Package database opens MySQL (or MariaDB) the way every service needs it: a
// pool that grows under load and closes idle connections, READ COMMITTED, and
// timeouts on everything.
package database

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/msrchat/msrchat/shared/retry"
)

// Config says where the database is and how large the pool may grow. Start from
// Defaults; zero sizes and times mean the defaults too.
type Config struct {
	// Addr is host:port.
	Addr     string
	User     string
	Name     string
	Password string
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
	c := mysql.NewConfig()
	c.Net, c.Addr, c.User, c.Passwd, c.DBName = "tcp", cfg.Addr, cfg.User, cfg.Password, cfg.Name
	c.Timeout, c.ReadTimeout, c.WriteTimeout = dialTimeout, ioTimeout, ioTimeout
	c.Collation = "utf8mb4_bin"
	c.RejectReadOnly = true       // a demoted primary must not look healthy
	c.Logger = &mysql.NopLogger{} // every error reaches the caller, which logs it once
	connector, err := mysql.NewConnector(c)
	if err != nil {
		return nil, fmt.Errorf("database configuration: %w", err)
	}
	db := sql.OpenDB(session{connector})
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

// sessionSettings are made on every new connection.
//
// The isolation level is set in the one form that MySQL and MariaDB share.
//
// A transaction that waits for its client is rolled back after five seconds, far
// longer than any of ours is idle between two statements. Otherwise a machine
// that loses its power or its network within a transaction keeps the locks until
// TCP gives up, in 15 minutes to two hours, and nobody can write to those
// conversations. Only MariaDB executes the comment; MySQL has no such setting:
// there the database's machine should have a short net.ipv4.tcp_keepalive_time.
var sessionSettings = []string{
	"SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
	"SET SESSION wait_timeout = @@SESSION.wait_timeout /*M! , idle_transaction_timeout = 5 */",
}

// session makes the settings of every new connection.
type session struct{ driver.Connector }

// Connect opens one connection.
func (s session) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := s.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	exec, ok := conn.(driver.ExecerContext)
	if !ok {
		return nil, errors.Join(errors.New("the driver cannot execute"), conn.Close())
	}
	for _, statement := range sessionSettings {
		if _, err := exec.ExecContext(ctx, statement, nil); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
	}
	return conn, nil
}

// Error numbers of MySQL that the code acts on.
const (
	errColumnExists = 1060
	errKeyExists    = 1061
	errDuplicate    = 1062
	errLockTimeout  = 1205
	errDeadlock     = 1213
)

// AlreadyExists says that the column or key that a statement adds exists already.
// MySQL, unlike MariaDB, has no IF NOT EXISTS for them.
func AlreadyExists(err error) bool {
	n := number(err)
	return n == errColumnExists || n == errKeyExists
}

// IsDuplicate says that a unique key refused a row.
func IsDuplicate(err error) bool { return number(err) == errDuplicate }

// IsContention says that the server gave up waiting for a lock: nothing was
// written, and the same transaction may work when tried again.
func IsContention(err error) bool {
	n := number(err)
	return n == errDeadlock || n == errLockTimeout
}

// Answered says that err is the server's own answer to a statement, which then
// had no effect. Any other error leaves its outcome unknown.
func Answered(err error) bool {
	n := number(err)
	return n != 0 && !shuttingDown[n]
}

// shuttingDown are answers of a server that is going away. They say nothing
// reliable about a commit in progress.
var shuttingDown = map[uint16]bool{1053: true, 1077: true, 1079: true, 1152: true, 1317: true, 1927: true}

func number(err error) uint16 {
	var e *mysql.MySQLError
	if errors.As(err, &e) {
		return e.Number
	}
	return 0
}

// CheckDurability refuses a server that acknowledges a commit before it is on
// disk: what we promise to users rests on these settings.
func CheckDurability(ctx context.Context, db *sql.DB) error {
	var flush, syncBinlog int
	var binlog bool
	row := db.QueryRowContext(ctx,
		"SELECT @@GLOBAL.innodb_flush_log_at_trx_commit, @@GLOBAL.log_bin, @@GLOBAL.sync_binlog")
	if err := row.Scan(&flush, &binlog, &syncBinlog); err != nil {
		return fmt.Errorf("read durability settings: %w", err)
	}
	const why = "a crash would lose acknowledged messages; set it to 1"
	if flush != 1 {
		return fmt.Errorf("the database runs with innodb_flush_log_at_trx_commit=%d: %s", flush, why)
	}
	if binlog && syncBinlog != 1 {
		return fmt.Errorf("the database runs with a binlog and sync_binlog=%d: %s", syncBinlog, why)
	}
	return nil
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
