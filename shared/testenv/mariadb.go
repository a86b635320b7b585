package testenv

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/msrchat/msrchat/shared/database"
	"github.com/msrchat/msrchat/shared/schema"
)

// MariaDBServer is a real server with an empty data directory.
type MariaDBServer struct {
	Process
	Addr string
}

// StartMariaDB starts a server of the test's own, to be killed and restarted.
// It ends with the test.
func StartMariaDB(t testing.TB) *MariaDBServer {
	t.Helper()
	s := newMariaDB(t)
	t.Cleanup(func() {
		s.Kill()
		_ = os.RemoveAll(s.dir)
	})
	s.Start(t)
	return s
}

func newMariaDB(t testing.TB) *MariaDBServer {
	t.Helper()
	daemon, install := Find(t, "mariadbd"), Find(t, "mariadb-install-db")
	dir, err := scratch()
	if err != nil {
		t.Fatal(err)
	}
	data, tmp, port := filepath.Join(dir, "data"), filepath.Join(dir, "tmp"), FreePort(t)
	if err := os.Mkdir(tmp, 0o700); err != nil {
		t.Fatal(err)
	}
	user := []string{"--user=" + strconv.Itoa(os.Getuid())}
	if os.Getuid() == 0 {
		user = []string{"--user=root"}
	}
	making := exec.Command(install, append(user, "--no-defaults", "--datadir="+data, "--skip-test-db",
		"--auth-root-authentication-method=normal", "--skip-name-resolve")...)
	// A server that starts removes all temporary tables of the folder, those of
	// another server as well.
	making.Env = append(os.Environ(), "TMPDIR="+tmp)
	out, err := making.CombinedOutput()
	if err != nil {
		t.Fatalf("mariadb-install-db: %v\n%s", err, out)
	}
	s := &MariaDBServer{Addr: "127.0.0.1:" + strconv.Itoa(port)}
	s.name, s.path, s.dir = "mariadbd", daemon, dir
	s.args = append([]string{
		"--no-defaults", "--datadir=" + data, "--tmpdir=" + tmp, "--bind-address=127.0.0.1", "--port=" + strconv.Itoa(port),
		"--socket=" + filepath.Join(dir, "s"), "--pid-file=" + filepath.Join(dir, "pid"),
		"--innodb-flush-log-at-trx-commit=1", "--skip-log-bin", "--max-connections=500",
		"--character-set-server=utf8mb4", "--collation-server=utf8mb4_bin", "--skip-name-resolve",
		"--innodb-buffer-pool-size=256M", "--innodb-log-file-size=256M",
	}, user...)
	s.ready = func(ctx context.Context) error {
		db, err := database.Open(ctx, s.config("mysql"))
		if err != nil {
			return err
		}
		return db.Close()
	}
	return s
}

func (s *MariaDBServer) config(name string) database.Config {
	return database.Config{Addr: s.Addr, User: "root", Name: name}
}

// databases numbers the databases of this test binary.
var databases atomic.Int64

// Database makes a fresh, migrated database on the server.
func (s *MariaDBServer) Database(t testing.TB) database.Config {
	t.Helper()
	ctx := context.Background()
	name := fmt.Sprintf("test_%d", databases.Add(1))
	root, err := database.Open(ctx, s.config("mysql"))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if _, err := root.ExecContext(ctx, "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	cfg := s.config(name)
	db := Open(t, cfg)
	if err := schema.Migrate(ctx, db, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// Open opens a database for the length of a test.
func Open(t testing.TB, cfg database.Config) *sql.DB {
	t.Helper()
	db, err := database.Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// shared is the one server that the tests of a binary share; its mutex owns it.
// It dies with the test binary.
var shared struct {
	sync.Mutex
	server *MariaDBServer
}

// MariaDB makes a fresh, migrated database on a server that the whole test
// binary shares. A test that kills its server wants StartMariaDB.
func MariaDB(t testing.TB) database.Config {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.server == nil {
		s := newMariaDB(t)
		s.Start(t)
		shared.server = s
	}
	return shared.server.Database(t)
}
