package testenv

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
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
	// User runs the server; nil is the present one.
	User *user.User
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
	runAs := "--user=" + strconv.Itoa(os.Getuid())
	if os.Getuid() == 0 {
		runAs = "--user=root"
	}
	if files.User != nil {
		runAs, p.User = "--user="+files.User.Username, files.User
		if err := give(files.Dir, files.User); err != nil {
			return p, err
		}
	}
	making := exec.CommandContext(ctx, install, runAs, "--no-defaults", "--datadir="+files.Data, "--skip-test-db",
		"--auth-root-authentication-method=normal", "--skip-name-resolve")
	// A server that starts removes all temporary tables of the folder, those of
	// another server as well.
	making.Env = append(os.Environ(), "TMPDIR="+tmp)
	making.SysProcAttr = &syscall.SysProcAttr{Credential: credential(files.User)}
	if out, err := making.CombinedOutput(); err != nil {
		return p, fmt.Errorf("mariadb-install-db: %w\n%s", err, out)
	}
	p.Name, p.Addr = "mariadbd", address(port)
	p.Args = []string{
		"--no-defaults", runAs, "--datadir=" + files.Data, "--tmpdir=" + tmp,
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
	on := cfg
	on.Name = "mysql"
	root, err := database.Open(ctx, on)
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

// mysqlEnv chooses the database of the tests: nothing for a MariaDB that they start,
// "galera" for a Galera cluster that they start, or the addresses of one that runs.
// mysqlEnv + "_USER" may make databases there (root if empty), with the password in
// the file that mysqlEnv + "_PASSWORD_FILE" names.
const mysqlEnv = "MSRCHAT_TEST_MYSQL"

// MariaDBServer is a real server of a test.
type MariaDBServer struct{ *Process }

// mariaDB is the server's program, with all of its files in a folder.
func mariaDB(dir string) (Program, error) {
	return MariaDBProgram(context.Background(), MariaDBFiles{Dir: dir, Data: filepath.Join(dir, "data"), Log: "256M"})
}

// StartMariaDB starts a server of the test's own, to be killed and restarted.
// It ends with the test, and skips it if another database is to be tested.
func StartMariaDB(t testing.TB) *MariaDBServer {
	t.Helper()
	if engine := os.Getenv(mysqlEnv); engine != "" {
		t.Skipf("not run: it stops its database, and %s is %q", mysqlEnv, engine)
	}
	return &MariaDBServer{start(t, mariaDB)}
}

// names numbers what this test binary makes.
var names atomic.Int64

// unique is a name that no other test uses, nor another run.
func unique(t testing.TB) string {
	t.Helper()
	return fmt.Sprintf("msrchat_test_%08x_%d", rand.Uint32(), names.Add(1))
}

// Database makes a fresh, migrated database on the server.
func (s *MariaDBServer) Database(t testing.TB) database.Config {
	t.Helper()
	return fresh(t, MariaDBConfig(s.Addr, ""))
}

// fresh makes a migrated database of a new name.
func fresh(t testing.TB, on database.Config) database.Config {
	t.Helper()
	on.Name = unique(t)
	must(t, CreateDatabase(context.Background(), on))
	return on
}

// Open opens a database for the length of a test.
func Open(t testing.TB, cfg database.Config) *sql.DB {
	t.Helper()
	db, err := database.Open(context.Background(), cfg)
	must(t, err)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// shared is the one server or cluster that the tests of a binary share; its mutex
// owns it. It dies with the test binary.
var shared struct {
	sync.Mutex
	addr string
}

// MariaDB makes a fresh, migrated database on a server that the whole test
// binary shares. A test that kills its server wants StartMariaDB.
func MariaDB(t testing.TB) database.Config {
	t.Helper()
	engine := os.Getenv(mysqlEnv)
	if engine != "" && engine != "galera" {
		cfg := fresh(t, outside(t, engine))
		t.Cleanup(func() {
			drop := "DROP DATABASE " + cfg.Name
			_, err := Open(t, cfg).ExecContext(context.Background(), drop) //nolint:gosec // made by unique
			must(t, err)
		})
		return cfg
	}
	shared.Lock()
	defer shared.Unlock()
	switch {
	case shared.addr != "":
	case engine == "galera":
		g := prepareGalera(t)
		g.start(t)
		shared.addr = g.Addr()
	default:
		p := prepare(t, mariaDB)
		p.Start(t)
		shared.addr = p.Addr
	}
	return fresh(t, MariaDBConfig(shared.addr, ""))
}

// outside is a database that runs already.
func outside(t testing.TB, addr string) database.Config {
	t.Helper()
	cfg := MariaDBConfig(addr, "")
	if user := os.Getenv(mysqlEnv + "_USER"); user != "" {
		cfg.User = user
	}
	if file := os.Getenv(mysqlEnv + "_PASSWORD_FILE"); file != "" {
		password, err := os.ReadFile(file) //nolint:gosec // who runs the tests names it
		must(t, err)
		cfg.Password = strings.TrimRight(string(password), "\r\n")
	}
	return cfg
}
