package backend

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	osuser "os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/msrchat/msrchat/shared/database"
	"github.com/msrchat/msrchat/shared/schema"
)

// MariaDBFiles says where a server keeps what.
type MariaDBFiles struct {
	// Dir has temporary files and, unless Socket is set, the socket; Data the tables.
	Dir, Data string
	// Socket is a path that may be relative to Data.
	Socket string
	// Log is the size of InnoDB's log, which it takes from the start: a large one
	// is faster. Empty means the server's default.
	Log string
	// Port on loopback; 0 takes a free one.
	Port int
	// User runs the server, nil the present one, and then owns Dir.
	User *osuser.User
	// Init is a file of SQL that runs at every start. With it root is this system user,
	// over the socket alone; without it root needs no password.
	Init string
}

// MariaDB is a server on a data directory, which is made if it is not there. Ready
// asks as root, which needs a change where Init is set.
func MariaDB(ctx context.Context, files MariaDBFiles) (p Program, err error) {
	if p.Path, err = Locate("mariadbd"); err != nil {
		return p, err
	}
	if files.Port == 0 {
		if files.Port, err = PickPort(); err != nil {
			return p, err
		}
	}
	tmp := filepath.Join(files.Dir, "tmp")
	if err := os.MkdirAll(tmp, 0o700); err != nil {
		return p, err
	}
	if p.User = files.User; p.User != nil {
		if err := give(files.Dir, p.User); err != nil {
			return p, err
		}
	}
	if err := makeData(ctx, files, tmp); err != nil {
		return p, err
	}
	if files.Socket == "" {
		files.Socket = filepath.Join(files.Dir, "s")
	}
	addr := Address(files.Port)
	p.Name, p.Addr = "mariadbd", addr
	p.Args = []string{
		"--no-defaults", user(files.User), "--datadir=" + files.Data, "--tmpdir=" + tmp,
		"--bind-address=127.0.0.1", "--port=" + strconv.Itoa(files.Port),
		"--socket=" + files.Socket, "--pid-file=" + filepath.Join(files.Dir, "pid"),
		"--innodb-flush-log-at-trx-commit=1", "--skip-log-bin", "--max-connections=500",
		"--character-set-server=utf8mb4", "--collation-server=utf8mb4_bin", "--skip-name-resolve",
		"--innodb-buffer-pool-size=256M",
	}
	if files.Log != "" {
		p.Args = append(p.Args, "--innodb-log-file-size="+files.Log)
	}
	if files.Init != "" {
		p.Args = append(p.Args, "--init-file="+files.Init)
	}
	p.Ready = func(ctx context.Context) error {
		db, err := database.Open(ctx, RootConfig(addr, "mysql"))
		if err != nil {
			return err
		}
		return db.Close()
	}
	return p, nil
}

// user is this system user, or another one: MariaDB runs as root only if that is
// explicit.
func user(as *osuser.User) string {
	if as != nil {
		return "--user=" + as.Username
	}
	if os.Getuid() == 0 {
		return "--user=root"
	}
	return "--user=" + strconv.Itoa(os.Getuid())
}

// makeData makes the data directory beside its place and moves it there when it is
// complete, so that an interrupted run leaves nothing that looks like data.
func makeData(ctx context.Context, files MariaDBFiles, tmp string) error {
	if _, err := os.Stat(files.Data); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	install, err := Locate("mariadb-install-db")
	if err != nil {
		return err
	}
	part := files.Data + ".new"
	if err := errors.Join(os.RemoveAll(part), os.MkdirAll(filepath.Dir(part), 0o700)); err != nil {
		return err
	}
	args := []string{"--no-defaults", user(files.User), "--datadir=" + part, "--skip-test-db", "--skip-name-resolve"}
	if files.Init == "" {
		args = append(args, "--auth-root-authentication-method=normal")
	} else {
		me, err := osuser.Current()
		if err != nil {
			return err
		}
		args = append(args, "--auth-root-authentication-method=socket", "--auth-root-socket-user="+me.Username)
	}
	making := exec.CommandContext(ctx, install, args...)
	// A server that starts removes all temporary tables of the folder, those of
	// another server as well.
	making.Env = append(os.Environ(), "TMPDIR="+tmp)
	making.SysProcAttr = &syscall.SysProcAttr{Credential: Credential(files.User)}
	if out, err := making.CombinedOutput(); err != nil {
		return fmt.Errorf("mariadb-install-db: %w\n%s", err, out)
	}
	return os.Rename(part, files.Data)
}

// RootConfig is a database of a server for its root.
func RootConfig(addr, name string) database.Config {
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
