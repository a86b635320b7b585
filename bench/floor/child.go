package floor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/msrchat/msrchat/shared/database"

	"github.com/msrchat/msrchat/bench/child"
)

// Command is the hidden command of a program that can run as a floor: it is
// started as "PROGRAM Command KIND" and calls Main.
const Command = "floor"

// readyMark begins the line with the address that a child listens on.
const readyMark = "listening "

// startTimeout is how long a child may take until it listens.
const startTimeout = 20 * time.Second

// Child is a floor in a process of its own, so that its CPU and memory are
// measured like a chat server's.
type Child struct {
	Addr string
	PID  int

	process *child.Child
}

// Start runs this program again as a floor. The database's password is passed in
// the environment. The child ends with Stop, and by itself when this process dies.
func Start(ctx context.Context, kind Kind, db database.Config) (*Child, error) {
	process, err := child.Start(ctx, []string{Command, string(kind)}, database.Environ(db)...)
	if err != nil {
		return nil, fmt.Errorf("start floor %s: %w", kind, err)
	}
	late := time.AfterFunc(startTimeout, process.Kill)
	defer late.Stop()
	line, err := bufio.NewReader(process.Out).ReadString('\n')
	if err != nil {
		process.Kill()
		return nil, fmt.Errorf("floor %s did not start (%w); its own message is above",
			kind, errors.Join(err, process.Stop(nil)))
	}
	addr := strings.TrimSpace(strings.TrimPrefix(line, readyMark))
	return &Child{Addr: addr, PID: process.PID, process: process}, nil
}

// Stop ends the child and waits for it.
func (c *Child) Stop() error {
	if err := c.process.Stop(nil); err != nil {
		return fmt.Errorf("stop floor: %w", err)
	}
	return nil
}

// Main is the child's side: it serves until its standard input ends.
func Main(ctx context.Context, kind Kind, cfg database.Config, stdin io.Reader, stdout io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer cancel()
		_, _ = io.Copy(io.Discard, stdin) // the end, or any error: the parent is gone
	}()
	s, err := open(ctx, kind, cfg)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(stdout, "%s%s\n", readyMark, l.Addr()); err != nil {
		return errors.Join(err, l.Close())
	}
	return s.Serve(ctx, l)
}

func open(ctx context.Context, kind Kind, cfg database.Config) (*Server, error) {
	if kind == Relay {
		return NewServer(ctx, kind, nil)
	}
	cfg.MaxOpen, cfg.MaxIdle = 1, 1
	db, err := database.Open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return NewServer(ctx, kind, db)
}
