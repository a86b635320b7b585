package testenv

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/msrchat/msrchat/shared/backend"
	"github.com/msrchat/msrchat/shared/database"
)

// MariaDBServer is a real server of a test.
type MariaDBServer struct{ *Process }

// mariaDB is the server's program, with all of its files in a folder.
func mariaDB(dir string) (backend.Program, error) {
	files := backend.MariaDBFiles{Dir: dir, Data: filepath.Join(dir, "data"), Log: "256M"}
	return backend.MariaDB(context.Background(), files)
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
	cfg := backend.RootConfig(s.Addr, fmt.Sprintf("test_%d", databases.Add(1)))
	must(t, backend.CreateDatabase(context.Background(), cfg))
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
