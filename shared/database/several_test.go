package database_test

import (
	"context"
	"database/sql"
	"net"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/msrchat/msrchat/shared/backend"
	"github.com/msrchat/msrchat/shared/testenv"

	"github.com/msrchat/msrchat/shared/database"
)

// at is the server that a pool's connections lead to, "" if there is none.
func at(db *sql.DB) string {
	var port int
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := db.QueryRowContext(ctx, "SELECT @@port").Scan(&port); err != nil {
		return ""
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}

// Connections go to the first server of several that takes writes, and stay there.
func TestOfSeveralServersTheFirstThatTakesWritesIsUsed(t *testing.T) {
	t.Parallel()
	one, two := testenv.StartMariaDB(t), testenv.StartMariaDB(t)
	set := func(s *testenv.MariaDBServer, setting string) {
		t.Helper()
		db := testenv.Open(t, backend.RootConfig(s.Addr, "mysql"))
		if _, err := db.ExecContext(t.Context(), "SET GLOBAL "+setting); err != nil {
			t.Fatal(err)
		}
	}
	db := testenv.Open(t, backend.RootConfig(one.Addr+","+two.Addr, "mysql"))
	db.SetMaxIdleConns(1)
	leadsTo := func(what string, s *testenv.MariaDBServer) {
		t.Helper()
		testenv.Until(t, what, func() bool { return at(db) == s.Addr })
	}
	leadsTo("the first", one)
	// A connection that is held does not hinder the others.
	held, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	set(one, "read_only = 1")
	leadsTo("the second, because the first is read-only", two)
	_ = held.Close() // it was to the first
	leadsTo("the second still", two)
	set(one, "read_only = 0")
	leadsTo("the second still, though the first would do", two)
	two.Kill()
	leadsTo("the first, because the second is away", one)
	two.Start(t)
	set(two, "innodb_flush_log_at_trx_commit = 2")
	one.Kill()
	_, err = db.ExecContext(t.Context(), "DO 1")
	if err == nil || !strings.Contains(err.Error(), "lose acknowledged") {
		t.Errorf("a server that loses commits was used: %v", err)
	}
	set(two, "innodb_flush_log_at_trx_commit = 1")
	leadsTo("the second, when it keeps them", two)
}

// A caller that waits for less than a server may take does not move all others.
func TestOfSeveralServersAnImpatientCallerLeavesNone(t *testing.T) {
	t.Parallel()
	one := testenv.StartMariaDB(t)
	other := testenv.MariaDB(t)
	db := testenv.Open(t, backend.RootConfig(one.Addr+","+other.Addr, "mysql"))
	began := time.Now()
	testenv.Until(t, "the next use asks the server", func() bool { return time.Since(began) > 1100*time.Millisecond })
	one.Signal(t, syscall.SIGSTOP)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := db.ExecContext(ctx, "DO 1"); err == nil {
		t.Error("a server that hangs has answered")
	}
	one.Signal(t, syscall.SIGCONT)
	if got := at(db); got != one.Addr {
		t.Errorf("the pool leads to %s, want %s", got, one.Addr)
	}
}

// A server that hangs leaves time for the next.
func TestOfSeveralServersOneThatHangsIsPassedOver(t *testing.T) {
	t.Parallel()
	hangs, err := net.Listen("tcp", "127.0.0.1:0") // it takes the connection and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer hangs.Close()
	cfg := testenv.MariaDB(t)
	cfg.Addr = hangs.Addr().String() + "," + cfg.Addr
	began := time.Now()
	testenv.Open(t, cfg)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestAddresses(t *testing.T) {
	for addr, good := range map[string]bool{"a:1": true, "a:1,b:2": true, "": false, "a:1,": false, ",": false} {
		cfg := database.Defaults()
		cfg.Addr = addr
		if err := cfg.Validate(); (err == nil) != good {
			t.Errorf("%q: %v", addr, err)
		}
	}
}
