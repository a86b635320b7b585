// Package database opens MySQL (or MariaDB) the way every service needs it:
// a pool that grows under load and lets idle connections go, READ COMMITTED,
// times and lengths bounded.
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

// The pool that suits one service on a small machine: commits are few and
// large, so ten connections carry tens of thousands of messages a second.
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

// The limits of one exchange. A statement that takes longer than ioTimeout is
// as good as lost; callers then treat its outcome as unknown.
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
	c.Logger = &mysql.NopLogger{} // every error reaches the caller, who logs it once
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
// A transaction that waits for its client is given up after five seconds, by far
// longer than any here is open between two statements. Without it, a machine that
// loses its power or its network in the middle of one keeps the locks until TCP
// gives up, a quarter of an hour or two: nobody could write into those
// conversations. The comment is MariaDB's to execute: MySQL has no such setting;
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
	errColumnThere = 1060
	errKeyThere    = 1061
	errDuplicate   = 1062
	errLockTimeout = 1205
	errDeadlock    = 1213
)

// IsThere says that the column or key which a statement adds exists already.
// MySQL, other than MariaDB, has no IF NOT EXISTS for them.
func IsThere(err error) bool { return number(err) == errColumnThere || number(err) == errKeyThere }

// IsDuplicate says that a unique key refused a row.
func IsDuplicate(err error) bool { return number(err) == errDuplicate }

// IsContention says that the server gave up waiting for a lock: nothing was
// written, and the same transaction may work when tried again.
func IsContention(err error) bool {
	n := number(err)
	return n == errDeadlock || n == errLockTimeout
}

// Answered says that err is the server's own answer to a statement, so that the
// statement surely had no effect. Any other error leaves its outcome unknown.
func Answered(err error) bool {
	n := number(err)
	return n != 0 && !shuttingDown[n]
}

// shuttingDown are answers of a server that is going away; what they say of a
// running commit is not to be relied on.
var shuttingDown = map[uint16]bool{1053: true, 1077: true, 1079: true, 1152: true, 1317: true, 1927: true}

func number(err error) uint16 {
	var e *mysql.MySQLError
	if errors.As(err, &e) {
		return e.Number
	}
	return 0
}

// CheckDurability refuses a server that acknowledges a commit before it is on
// disk: the promise to users rests on these settings.
func CheckDurability(ctx context.Context, db *sql.DB) error {
	var flush, syncBinlog int
	var binlog bool
	row := db.QueryRowContext(ctx, "SELECT @@GLOBAL.innodb_flush_log_at_trx_commit, @@GLOBAL.log_bin, @@GLOBAL.sync_binlog")
	if err := row.Scan(&flush, &binlog, &syncBinlog); err != nil {
		return fmt.Errorf("read durability settings: %w", err)
	}
	if flush != 1 {
		return fmt.Errorf("the database runs with innodb_flush_log_at_trx_commit=%d: a crash would lose acknowledged messages; set it to 1", flush)
	}
	if binlog && syncBinlog != 1 {
		return fmt.Errorf("the database runs with a binlog and sync_binlog=%d: a crash would lose acknowledged messages; set it to 1", syncBinlog)
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
