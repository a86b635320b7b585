package demo

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// progress prints a line for each step of the start, and on a terminal how long
// the present one takes.
type progress struct {
	out  io.Writer
	stop func()

	mu    sync.Mutex // owns out and since
	since time.Time
}

const clearLine = "\r\x1b[K"

func startProgress(out io.Writer) *progress {
	p := &progress{out: out, since: time.Now()}
	f, is := out.(*os.File)
	if !is || !term.IsTerminal(int(f.Fd())) {
		p.stop = func() {}
		return p
	}
	quit, done := make(chan struct{}), make(chan struct{})
	p.stop = sync.OnceFunc(func() {
		close(quit)
		<-done
		fmt.Fprint(out, clearLine)
	})
	go func() {
		defer close(done)
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				p.mu.Lock()
				fmt.Fprintf(out, "%s… %.0f s", clearLine, time.Since(p.since).Seconds())
				p.mu.Unlock()
			case <-quit:
				return
			}
		}
	}()
	return p
}

// Write prints the lines of a step that is done.
func (p *progress) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.since = time.Now()
	if f, is := p.out.(*os.File); is && term.IsTerminal(int(f.Fd())) {
		fmt.Fprint(p.out, clearLine)
	}
	return p.out.Write(b)
}

func (p *progress) step(name string, began time.Time) {
	fmt.Fprintf(p, "%-32s %5.1f s\n", name, time.Since(began).Seconds())
}

// end ends it, however often it is called.
func (p *progress) end() { p.stop() }
