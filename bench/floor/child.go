package floor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/msrchat/msrchat/shared/database"
)

// Command is the hidden command of a program that can run as a floor: it is
// started as "PROGRAM Command KIND" and calls Main.
const Command = "floor"

// readyMark begins the line with the address that a child listens on.
const readyMark = "listening "

// Limits of a child's life.
const (
	startTimeout = 20 * time.Second
	stopTimeout  = 20 * time.Second
)

// Child is a floor in a process of its own, so that its CPU and memory are
// measured like a chat server's.
type Child struct {
	Addr string
	PID  int

	cmd   *exec.Cmd
	stdin io.Closer
}

// Start runs this program again as a floor. The database's password is passed in
// the environment. The child ends with Stop, and by itself when this process dies.
func Start(ctx context.Context, kind Kind, db database.Config) (*Child, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), program, Command, string(kind))
	cmd.Env = append(os.Environ(), database.Environ(db)...)
	cmd.Stderr = os.Stderr
	detach(cmd)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start floor %s: %w", kind, err)
	}
	c := &Child{PID: cmd.Process.Pid, cmd: cmd, stdin: stdin}
	late := time.AfterFunc(startTimeout, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		_ = cmd.Process.Kill()
		return nil, fmt.Errorf("floor %s did not start (%w); its own message is above",
			kind, errors.Join(err, cmd.Wait()))
	}
	c.Addr = strings.TrimSpace(strings.TrimPrefix(line, readyMark))
	return c, nil
}

// Stop ends the child and waits for it.
func (c *Child) Stop() error {
	late := time.AfterFunc(stopTimeout, func() { _ = c.cmd.Process.Kill() })
	defer late.Stop()
	if err := errors.Join(c.stdin.Close(), c.cmd.Wait()); err != nil {
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
