package testenv

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/msrchat/msrchat/shared/backend"
	"github.com/msrchat/msrchat/shared/database"
)

// mysqlEnv chooses the database of the tests: nothing for a MariaDB that they start,
// "galera" for a Galera cluster that they start, or the addresses of one that runs.
// mysqlEnv + "_USER" may make databases there (root if empty), with the password in
// the file that mysqlEnv + "_PASSWORD_FILE" names.
const mysqlEnv = "MSRCHAT_TEST_MYSQL"

// MariaDBServer is a real server of a test.
type MariaDBServer struct{ *Process }

// mariaDB is the server's program, with all of its files in a folder.
func mariaDB(dir string) (backend.Program, error) {
	files := backend.MariaDBFiles{Dir: dir, Data: filepath.Join(dir, "data"), Log: "256M"}
	return backend.MariaDB(context.Background(), files)
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
	return fresh(t, backend.RootConfig(s.Addr, ""))
}

// fresh makes a migrated database of a new name.
func fresh(t testing.TB, on database.Config) database.Config {
	t.Helper()
	on.Name = unique(t)
	must(t, backend.CreateDatabase(context.Background(), on))
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
			drop := "DROP DATABASE " + cfg.Name                            //nolint:gosec // a name that unique made
			_, err := Open(t, cfg).ExecContext(context.Background(), drop) //nolint:gosec // the same
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
	return fresh(t, backend.RootConfig(shared.addr, ""))
}

// outside is a database that runs already.
func outside(t testing.TB, addr string) database.Config {
	t.Helper()
	cfg := backend.RootConfig(addr, "")
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
