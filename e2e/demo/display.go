package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// display is where states are shown: three panes of tmux, or lines.
type display struct {
	show func(State)
	// keys are pressed in the director's pane; gone is closed when nobody sees it
	// any more. Both are nil for lines.
	keys  <-chan string
	gone  <-chan struct{}
	close func()
}

// open opens the display: lines where they are wanted, or where tmux cannot be
// had, which it tells.
func (d *director) open(ctx context.Context) (display, error) {
	if !d.cfg.Plain {
		out, err := d.openPanes(ctx)
		if err == nil || ctx.Err() != nil {
			return out, err
		}
		fmt.Fprintf(d.cfg.Output, "no panes, only lines: %v\n", err)
	}
	lines := &plain{w: d.cfg.Output}
	return display{show: lines.show, close: func() {}}, nil
}

// size is the terminal's, if it is one and large enough.
func size() (width, height int, err error) {
	if !term.IsTerminal(int(os.Stdin.Fd())) || !term.IsTerminal(int(os.Stdout.Fd())) {
		return 0, 0, errors.New("this is no terminal")
	}
	width, height, err = term.GetSize(int(os.Stdout.Fd()))
	if err == nil && (width < minWidth || height < minHeight) {
		err = fmt.Errorf("they need %d columns and %d rows, this terminal has %d and %d", minWidth, minHeight, width, height)
	}
	return width, height, err
}

// openPanes shows ann, ben and the director in tmux.
func (d *director) openPanes(ctx context.Context) (out display, err error) {
	width, height, err := size()
	if err != nil {
		return out, err
	}
	tmux, err := exec.LookPath("tmux")
	if err != nil {
		return out, errors.New("tmux is not installed")
	}
	dir := filepath.Join(d.arena.Dir(), "people")
	socket := filepath.Join(dir, "director")
	// They end with the session, or with ctx.
	panes, leave := context.WithCancel(ctx)
	s, err := listen(panes, socket)
	if err != nil {
		leave()
		return out, err
	}
	chat := func(who *person) string {
		// Whoever leaves by mistake is back in a second.
		return fmt.Sprintf("while :; do %s --profile %s; sleep 1; done", quote(who.program), who.name)
	}
	session := &session{tmux: tmux, socket: filepath.Join(dir, "tmux")}
	out = display{show: s.show, keys: s.keys, close: sync.OnceFunc(func() {
		leave()
		session.close()
		s.close()
	})}
	err = session.start(ctx, d.people[0].env, width, height, map[string]string{
		paneAnn: chat(d.people[0]), paneBen: chat(d.people[1]),
		paneDirector: fmt.Sprintf("%s --director %s; exec %s kill-server", quote(d.cfg.Self), quote(socket), quote(tmux)),
	})
	if err == nil {
		err = errors.Join(session.open(ctx, paneAnn, "ben"), session.open(ctx, paneBen, "ann"), s.accept(panes))
	}
	if err == nil {
		out.gone, err = session.attach()
	}
	if err != nil {
		out.close()
		return display{close: func() {}, show: func(State) {}}, err
	}
	return out, nil
}

// quote makes one word of a text for a shell.
func quote(text string) string {
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// watched waits until somebody has seen the verdict and leaves.
func (d display) watched(ctx context.Context) {
	since := time.Now()
	for {
		select {
		case key := <-d.keys:
			if key == "ctrl+c" || time.Since(since) > grace {
				return
			}
		case <-d.gone:
			return
		case <-ctx.Done():
			return
		}
	}
}
