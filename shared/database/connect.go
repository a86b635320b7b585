package database

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/msrchat/msrchat/shared/process"
)

// sessionSettings are made on every new connection.
//
// The isolation level is set in the one form that MySQL and MariaDB share.
//
// A transaction that waits for its client is rolled back after five seconds, far
// longer than any of ours is idle between two statements. Otherwise a machine
// that loses its power or its network within a transaction keeps the locks until
// TCP gives up, in 15 minutes to two hours, and nobody can write to those
// conversations. Only MariaDB executes the first comment, only TiDB the second; MySQL
// has no such setting: there the database's machine should have a short
// net.ipv4.tcp_keepalive_time.
var sessionSettings = []string{
	"SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
	"SET SESSION wait_timeout = @@SESSION.wait_timeout /*M! , idle_transaction_timeout = 5 */" +
		" /*T! , tidb_idle_transaction_timeout = 5 */",
}

// syncReads makes a Galera node answer a read only after it has applied what was
// committed before on any node: a user who has just registered by one node is there
// on the next.
const syncReads = "SET SESSION wsrep_sync_wait = 1"

// checkEvery is how long a node of several is trusted without a look.
const checkEvery = time.Second

// connector opens the connections of a pool. Of several servers it uses the first
// that takes writes, and keeps to it: two nodes of a Galera cluster that are both
// written to find their conflicts only at the commit.
type connector struct {
	servers []server
	// current is the index of the server in use.
	current atomic.Int64
}

type server struct {
	driver.Connector
	address string
}

func newConnector(cfg Config) (*connector, error) {
	c := &connector{}
	for address := range strings.SplitSeq(cfg.Addr, ",") {
		m := mysql.NewConfig()
		m.Net, m.Addr, m.User, m.Passwd, m.DBName = "tcp", address, cfg.User, cfg.Password, cfg.Name
		m.Timeout, m.ReadTimeout, m.WriteTimeout = dialTimeout, ioTimeout, ioTimeout
		m.Collation = "utf8mb4_bin"
		m.RejectReadOnly = true       // a demoted primary must not look healthy
		m.Logger = &mysql.NopLogger{} // every error reaches the caller, which logs it once
		if cfg.TLS {
			var err error
			if m.TLS, err = process.ClientTLS(cfg.CAFile, cfg.ServerName); err != nil {
				return nil, err
			}
		}
		s, err := mysql.NewConnector(m)
		if err != nil {
			return nil, err
		}
		c.servers = append(c.servers, server{s, address})
	}
	return c, nil
}

// Driver implements driver.Connector.
func (c *connector) Driver() driver.Driver { return c.servers[0].Driver() }

func (c *connector) several() bool { return len(c.servers) > 1 }

// Connect opens one connection: to the server in use, or the next that takes writes.
func (c *connector) Connect(ctx context.Context) (driver.Conn, error) {
	first := c.current.Load()
	var problems []error
	for i := range int64(len(c.servers)) {
		at := (first + i) % int64(len(c.servers))
		conn, err := c.open(ctx, at)
		if err == nil {
			c.current.Store(at)
			return conn, nil
		}
		if c.several() {
			err = fmt.Errorf("%s: %w", c.servers[at].address, err)
		}
		if problems = append(problems, err); ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(problems...)
}

// open opens a connection to one server.
func (c *connector) open(ctx context.Context, at int64) (driver.Conn, error) {
	if c.several() { // one that hangs leaves time for the next
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, dialTimeout)
		defer cancel()
	}
	opened, err := c.servers[at].Connect(ctx)
	if err != nil {
		return nil, err
	}
	inner, ok := opened.(mysqlConn)
	if !ok {
		return nil, errors.Join(errors.New("the driver's connection lacks a method"), opened.Close())
	}
	conn := &conn{mysqlConn: inner, connector: c, at: at}
	if err := conn.begin(ctx); err != nil {
		return nil, errors.Join(err, opened.Close())
	}
	return conn, nil
}

// mysqlConn is what the driver's connections have.
type mysqlConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.NamedValueChecker
	driver.Pinger
	driver.SessionResetter
	driver.Validator
}

// conn is a connection to one of the servers. As with every connection of a pool, one
// goroutine at a time uses it.
type conn struct {
	mysqlConn
	connector *connector
	at        int64
	checked   time.Time
}

// begin makes the settings of a new connection, and checks a server of several.
func (c *conn) begin(ctx context.Context) error {
	for _, statement := range sessionSettings {
		if _, err := c.ExecContext(ctx, statement, nil); err != nil {
			return err
		}
	}
	if !c.connector.several() {
		return nil
	}
	if err := c.check(ctx); err != nil {
		return err
	}
	var d Durability
	if err := c.rows(ctx, durabilityQuery, d.set); err != nil {
		return err
	}
	if err := d.Check(); err != nil {
		return err
	}
	galera := false
	err := c.rows(ctx, "SHOW VARIABLES LIKE 'wsrep_on'", func(_, value string) { galera = value == "ON" })
	if err == nil && galera {
		_, err = c.ExecContext(ctx, syncReads, nil)
	}
	return err
}

var errReadOnly = errors.New("the server is read-only")

// check says why the server takes no writes. A Galera node that is not in step with
// a majority answers no SELECT.
func (c *conn) check(ctx context.Context) error {
	readOnly := false
	err := c.rows(ctx, "SELECT 'read_only', @@GLOBAL.read_only", func(_, value string) {
		readOnly = value != "0" && value != "OFF" // MariaDB 12 and TiDB have words
	})
	if err == nil && readOnly {
		err = errReadOnly
	}
	c.checked = time.Now()
	return err
}

// rows calls fn with the two columns of each row of an answer.
func (c *conn) rows(ctx context.Context, query string, fn func(name, value string)) error {
	rows, err := c.QueryContext(ctx, query, nil)
	if err != nil {
		return err
	}
	defer rows.Close()
	row := make([]driver.Value, len(rows.Columns()))
	for {
		switch err := rows.Next(row); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		fn(text(row[0]), text(row[1]))
	}
}

func text(v driver.Value) string {
	if b, ok := v.([]byte); ok {
		return string(b)
	}
	return fmt.Sprint(v)
}

// ResetSession is called when the pool hands the connection out again. Of several
// servers, one that the pool has left, or that takes no writes any more, is not used.
func (c *conn) ResetSession(ctx context.Context) error {
	if err := c.mysqlConn.ResetSession(ctx); err != nil || !c.connector.several() {
		return err
	}
	if c.at != c.connector.current.Load() {
		return driver.ErrBadConn
	}
	if time.Since(c.checked) < checkEvery {
		return nil
	}
	asking, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if c.check(asking) == nil {
		return nil
	}
	if ctx.Err() == nil { // else the caller had no time for the answer
		next := (c.at + 1) % int64(len(c.connector.servers))
		c.connector.current.CompareAndSwap(c.at, next)
	}
	return driver.ErrBadConn
}
