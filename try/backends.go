package try

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/msrchat/msrchat/shared/backend"
	"github.com/msrchat/msrchat/shared/cache"
	"github.com/msrchat/msrchat/shared/database"
	"github.com/msrchat/msrchat/shared/schema"
)

// programGrace is for MariaDB to write its pages and for Redis to write its file.
const programGrace = 30 * time.Second

// The folders are those of the jobs mysql and redis.
func (s *system) mariadbDir() string { return filepath.Join(s.cfg.State.Data(), "mysql") }
func (s *system) redisDir() string   { return filepath.Join(s.cfg.State.Data(), "redis") }

func (s *system) database() database.Config {
	cfg := database.Defaults()
	cfg.Addr, cfg.Password = local(s.cfg.Ports.MySQL()), s.secrets.mysql
	return cfg
}

func (s *system) cache() cache.Config {
	cfg := cache.Defaults()
	cfg.Addrs, cfg.Password = []string{local(s.cfg.Ports.Redis())}, s.secrets.redis
	return cfg
}

// mariadb makes the data if there is none, says how that went, and runs the server.
func (s *system) mariadb(ctx context.Context, made chan<- error) error {
	p, err := backend.MariaDB(ctx, backend.MariaDBFiles{
		Dir: s.dir, Data: s.mariadbDir(), Port: s.cfg.Ports.MySQL(), Init: s.secrets.initSQL,
		// Relative to the data, because the path of a deep checkout is longer than the
		// 107 bytes that the kernel allows.
		Socket: "mysql.sock",
	})
	made <- err
	if err != nil {
		return err
	}
	return s.program(ctx, p, s.mariadbDir())
}

func (s *system) redis(ctx context.Context) error {
	p, err := backend.Redis(backend.RedisFiles{
		Dir: s.redisDir(), Port: s.cfg.Ports.Redis(), Config: s.secrets.redisConf,
	})
	if err != nil {
		return err
	}
	return s.program(ctx, p, s.redisDir())
}

// migrate waits for MariaDB and brings the schema up to date.
func (s *system) migrate(ctx context.Context) error {
	var db *sql.DB
	if err := until(ctx, "MariaDB", func(ctx context.Context) (err error) {
		db, err = database.Open(ctx, s.database())
		return err
	}); err != nil {
		return err
	}
	defer db.Close()
	return schema.Migrate(ctx, db, s.logger)
}

// program runs an outside program until ctx ends; it dies with this process, whatever
// ends that.
func (s *system) program(ctx context.Context, p backend.Program, dir string) error {
	path := filepath.Join(s.cfg.State.Logs(), "try-"+p.Name+".log")
	log, err := os.Create(path)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(p.Path, p.Args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	exited, err := backend.Launch(cmd)
	if err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	select {
	case <-exited:
		return fmt.Errorf("%s ended by itself (%v); its last lines:\n%s", p.Name, cmd.ProcessState, tail(path))
	case <-ctx.Done():
	}
	_ = cmd.Process.Signal(syscall.SIGTERM) // one that has ended is what is wanted
	select {
	case <-exited:
		return nil
	case <-time.After(programGrace):
		_ = cmd.Process.Kill()
		<-exited
		return fmt.Errorf("%s did not end within %v and was killed", p.Name, programGrace)
	}
}

// tail is the end of a file, for an error.
func tail(path string) string {
	const most = 2 << 10
	file, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer file.Close()
	if info, err := file.Stat(); err == nil && info.Size() > most {
		_, _ = file.Seek(-most, io.SeekEnd)
	}
	text, _ := io.ReadAll(file)
	return string(text)
}
