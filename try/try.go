// Package try is the whole system in one process, for a first look: a gate, two status
// and two chat servers, a mailbox, and a catalog in memory, on a MariaDB and a Redis
// that it starts. What people write is kept in the folder of the local fleet, so that
// the fleet finds it too.
package try

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/msrchat/msrchat/shared/discovery/memory"
	"github.com/msrchat/msrchat/shared/lifecycle"
	"github.com/msrchat/msrchat/shared/retry"
	"github.com/msrchat/msrchat/tools/ports"
	"github.com/msrchat/msrchat/tools/process"
	"github.com/msrchat/msrchat/tools/state"
)

// Command is what people type.
const Command = "./justw try"

const (
	// startLimit bounds the start, on a busy machine and after a crash of MariaDB.
	startLimit = 2 * time.Minute
	// stopLimit bounds the stop: the servers drain for a second or two, and MariaDB
	// writes its pages.
	stopLimit = time.Minute
)

// Config says where everything is.
type Config struct {
	State state.Dir
	Ports ports.Table
	// Out is for people.
	Out io.Writer
}

// Run starts everything, says how to chat, and ends it when ctx ends. It returns nil
// after a clean end.
func Run(ctx context.Context, cfg Config) error {
	release, err := cfg.State.Hold(Command)
	if err != nil {
		return err
	}
	defer release()
	if err := free(ctx, cfg); err != nil {
		return err
	}
	s := &system{cfg: cfg, dir: filepath.Join(cfg.State.Path(), "try"), catalog: memory.New(), began: time.Now()}
	defer s.catalog.Close()
	if err := s.prepare(); err != nil {
		return err
	}
	defer s.log.Close()
	if err := cfg.State.SetPortBase(cfg.Ports.Base()); err != nil {
		return err
	}
	defer func() { _ = cfg.State.ForgetPortBase() }()
	return s.run(ctx)
}

// free says who is in the way: this checkout's fleet, or what holds a port.
func free(ctx context.Context, cfg Config) error {
	manager, err := cfg.State.Manager()
	if err != nil {
		return err
	}
	if manager != "" {
		down := "./justw down"
		if manager == state.ByTerraform {
			down = "./justw destroy local"
		}
		return fmt.Errorf("the fleet of this checkout is up: chat with it (./justw chat), or take it down first (%s)",
			down)
	}
	return awaitPorts(ctx, cfg)
}

// endLimit is how long MariaDB and Redis of a run that was killed may take to let go of
// their ports: some threads end after the program has left the list of processes.
const endLimit = 10 * time.Second

// awaitPorts returns when all ports are free. A program of somebody else on one of them
// is an error at once.
func awaitPorts(ctx context.Context, cfg Config) error {
	deadline := time.Now().Add(endLimit)
	for {
		taken, foreign := holders(cfg)
		if len(taken) == 0 {
			return nil
		}
		if foreign || time.Now().After(deadline) || !retry.Sleep(ctx, 100*time.Millisecond) {
			return fmt.Errorf("its ports are not free:\n  %s\nend that program, or use other ports, for example with %s=%d",
				strings.Join(taken, "\n  "), ports.EnvBase, cfg.Ports.Elsewhere())
		}
	}
}

// holders says what holds which of its ports, and whether a program that runs elsewhere
// than in its data folder does.
func holders(cfg Config) (taken []string, foreign bool) {
	table := cfg.Ports
	for _, p := range []ports.Port{
		{Owner: "gate", Number: table.Gate()},
		{Owner: "MariaDB", Number: table.MySQL()},
		{Owner: "Redis", Number: table.Redis()},
		{Owner: "mail", Number: table.MailSMTP()},
		{Owner: "mail", Number: table.MailHTTP()},
	} {
		held, holder, known := process.Listening(p.Number)
		if !held {
			continue
		}
		who := "a process that cannot be seen from here (another user's?)"
		if known {
			who = holder.String()
			foreign = foreign || !strings.HasPrefix(holder.Dir, cfg.State.Data()+string(filepath.Separator))
		}
		taken = append(taken, fmt.Sprintf("port %d (%s) is taken by %s", p.Number, p.Owner, who))
	}
	return taken, foreign
}

// system is one run. Its methods are for the goroutine of Run; those of the parts use
// only what is set before they start, and the printer.
type system struct {
	cfg     Config
	dir     string // secrets, temporary files, sockets
	began   time.Time
	catalog *memory.Catalog
	log     *os.File
	logger  *slog.Logger
	secrets secrets

	printing sync.Mutex // owns cfg.Out
}

// prepare makes the folders, the log and the secrets.
func (s *system) prepare() (err error) {
	for _, folder := range []string{s.dir, s.cfg.State.Logs(), s.cfg.State.Data(), s.redisDir()} {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return err
		}
	}
	if s.secrets, err = newSecrets(s.dir); err != nil {
		return err
	}
	if s.log, err = os.Create(filepath.Join(s.cfg.State.Logs(), "try.log")); err != nil {
		return err
	}
	s.logger = slog.New(slog.NewTextHandler(s.log, nil))
	return nil
}

func (s *system) printf(format string, args ...any) {
	s.printing.Lock()
	defer s.printing.Unlock()
	fmt.Fprintf(s.cfg.Out, format, args...)
}

// run runs all parts until ctx ends or one fails. They start at once and wait for each
// other, and stop from the last to the first.
func (s *system) run(ctx context.Context) error {
	services, err := s.services()
	if err != nil {
		return err
	}
	var g lifecycle.Group
	mariadb := make(chan error, 1) // how making its data went
	g.Go("MariaDB", func(ctx context.Context) error { return s.mariadb(ctx, mariadb) })
	g.Go("Redis", s.redis)
	g.Go("mail", services.mail.Run)
	g.Go("status", together(services.status))
	g.Go("chat", together(services.chats))
	g.Go("gate", services.gate.Run)
	g.OnStop("farewell", func(context.Context) error {
		s.printf("\nending …\n")
		return nil
	})
	g.Go("start", func(ctx context.Context) error {
		err := s.start(ctx, mariadb, services)
		return lifecycle.UnlessStopped(ctx, err)
	})
	err = g.Run(ctx, stopLimit)
	if err != nil {
		return fmt.Errorf("%w\n(the log: %s)", err, s.log.Name())
	}
	s.printf("msrChat has ended. What was written is kept in %s; %s goes on with it,\n"+
		"./justw down --purge removes it.\n", s.cfg.State.Data(), Command)
	return nil
}

// runner is what every service's root package offers.
type runner interface {
	Run(ctx context.Context) error
}

// together runs servers that begin and end at the same time.
func together[S runner](servers []S) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		ended := make(chan error, len(servers))
		for _, server := range servers {
			go func() { ended <- server.Run(ctx) }()
		}
		var problems []error
		for range servers {
			problems = append(problems, <-ended)
			cancel() // one that ended takes the others with it
		}
		return errors.Join(problems...)
	}
}
