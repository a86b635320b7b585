package testenv

import (
	"context"
	"database/sql"
	"errors"
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

// MariaDBFiles says where a server keeps what.
type MariaDBFiles struct {
	// Dir has the socket and temporary files, Data the tables.
	Dir, Data string
	// Log is the size of InnoDB's log, which it takes from the start: a large one
	// is faster.
	Log string
}

// MariaDBProgram makes an empty data directory and is a server on it, whose root
// needs no password.
func MariaDBProgram(ctx context.Context, files MariaDBFiles) (p Program, err error) {
	if p.Path, err = Locate("mariadbd"); err != nil {
		return p, err
	}
	install, err := Locate("mariadb-install-db")
	if err != nil {
		return p, err
	}
	port, err := PickPort()
	tmp := filepath.Join(files.Dir, "tmp")
	if err := errors.Join(err, os.Mkdir(tmp, 0o700)); err != nil {
		return p, err
	}
	user := "--user=" + strconv.Itoa(os.Getuid())
	if os.Getuid() == 0 {
		user = "--user=root"
	}
	making := exec.CommandContext(ctx, install, user, "--no-defaults", "--datadir="+files.Data, "--skip-test-db",
		"--auth-root-authentication-method=normal", "--skip-name-resolve")
	// A server that starts removes all temporary tables of the folder, those of
	// another server as well.
	making.Env = append(os.Environ(), "TMPDIR="+tmp)
	if out, err := making.CombinedOutput(); err != nil {
		return p, fmt.Errorf("mariadb-install-db: %w\n%s", err, out)
	}
	p.Name, p.Addr = "mariadbd", address(port)
	p.Args = []string{
		"--no-defaults", user, "--datadir=" + files.Data, "--tmpdir=" + tmp,
		"--bind-address=127.0.0.1", "--port=" + strconv.Itoa(port),
		"--socket=" + filepath.Join(files.Dir, "s"), "--pid-file=" + filepath.Join(files.Dir, "pid"),
		"--innodb-flush-log-at-trx-commit=1", "--skip-log-bin", "--max-connections=500",
		"--character-set-server=utf8mb4", "--collation-server=utf8mb4_bin", "--skip-name-resolve",
		"--innodb-buffer-pool-size=256M", "--innodb-log-file-size=" + files.Log,
	}
	p.Ready = func(ctx context.Context) error {
		db, err := database.Open(ctx, MariaDBConfig(address(port), "mysql"))
		if err != nil {
			return err
		}
		return db.Close()
	}
	return p, nil
}

// MariaDBConfig is a database of a server for its root.
func MariaDBConfig(addr, name string) database.Config {
	return database.Config{Addr: addr, User: "root", Name: name}
}

// CreateDatabase makes a database with the schema, unless it is there.
func CreateDatabase(ctx context.Context, cfg database.Config) error {
	root, err := database.Open(ctx, MariaDBConfig(cfg.Addr, "mysql"))
	if err != nil {
		return err
	}
	defer root.Close()
	if _, err := root.ExecContext(ctx, "CREATE DATABASE IF NOT EXISTS "+cfg.Name); err != nil {
		return err
	}
	db, err := database.Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer db.Close()
	return schema.Migrate(ctx, db, slog.New(slog.DiscardHandler))
}

// MariaDBServer is a real server of a test.
type MariaDBServer struct{ *Process }

// mariaDB is the server's program, with all of its files in a folder.
func mariaDB(dir string) (Program, error) {
	return MariaDBProgram(context.Background(), MariaDBFiles{Dir: dir, Data: filepath.Join(dir, "data"), Log: "256M"})
}

// StartMariaDB starts a server of the test's own, to be killed and restarted.
// It ends with the test.
func StartMariaDB(t testing.TB) *MariaDBServer {
	t.Helper()
	return &MariaDBServer{start(t, mariaDB)}
}

// databases numbers the databases of this test binary.
var databases atomic.Int64

// Database makes a fresh, migrated database on the server.
func (s *MariaDBServer) Database(t testing.TB) database.Config {
	t.Helper()
	cfg := MariaDBConfig(s.Addr, fmt.Sprintf("test_%d", databases.Add(1)))
	must(t, CreateDatabase(context.Background(), cfg))
	return cfg
}

// Open opens a database for the length of a test.
func Open(t testing.TB, cfg database.Config) *sql.DB {
	t.Helper()
	db, err := database.Open(context.Background(), cfg)
	must(t, err)
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
		p := prepare(t, mariaDB)
		p.Start(t)
		shared.server = &MariaDBServer{p}
	}
	return shared.server.Database(t)
}
