package fleet

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	nomad "github.com/hashicorp/nomad/api"

	"github.com/msrchat/msrchat/tools/internal/job"
)

// maxLine is the longest line in the output of Logs, so that a program that
// prints no line end does not fill the memory.
const maxLine = 64 << 10

// Logs writes the logs of all instances of a service, each line after the
// instance's short id, or of the agents "consul" and "nomad". With follow it
// goes on until ctx ends.
func (f *Fleet) Logs(ctx context.Context, service string, follow bool) error {
	for _, a := range f.agents("") {
		if a.Name() == service {
			return f.agentLog(ctx, a.LogFile(), follow)
		}
	}
	if !f.running() {
		return ErrDown
	}
	allocs, _, err := f.nomad.Jobs().Allocations(service, true, (&nomad.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return fmt.Errorf("logs of %s: %w", service, err)
	}
	if len(allocs) == 0 {
		return fmt.Errorf("%q does not run; there are %s, consul and nomad",
			service, strings.Join(job.Names(job.All()), ", "))
	}
	slices.SortFunc(allocs, func(a, b *nomad.AllocationListStub) int { return int(a.CreateTime - b.CreateTime) })

	out := &lineWriter{out: f.out}
	var group sync.WaitGroup
	for _, stub := range allocs {
		for task := range stub.TaskStates {
			for _, stream := range []string{"stdout", "stderr"} {
				copyLog := func() { f.copyLog(ctx, out, stub, task, stream, follow) }
				if follow && stub.ClientStatus == nomad.AllocClientStatusRunning {
					group.Go(copyLog)
				} else {
					copyLog()
				}
			}
		}
	}
	group.Wait()
	return nil
}

// copyLog writes one stream of one task, or that it cannot be read. A task that
// never started has none.
func (f *Fleet) copyLog(
	ctx context.Context, out *lineWriter, stub *nomad.AllocationListStub, task, stream string, follow bool,
) {
	prefix := fmt.Sprintf("%s/%s", job.ShortID(stub.ID), task)
	stop := make(chan struct{})
	release := context.AfterFunc(ctx, func() { close(stop) })
	defer release()
	follow = follow && stub.ClientStatus == nomad.AllocClientStatusRunning
	query := (&nomad.QueryOptions{}).WithContext(ctx)
	frames, errs := f.nomad.AllocFS().Logs(&nomad.Allocation{ID: stub.ID, NodeID: stub.NodeID},
		follow, task, stream, nomad.OriginStart, 0, stop, query)
	reader, writer := io.Pipe()
	go func() {
		writer.CloseWithError(pump(frames, errs, writer))
	}()
	if err := out.copy(prefix, reader); err != nil && ctx.Err() == nil && !strings.Contains(err.Error(), "not found") {
		out.line(prefix, fmt.Sprintf("(%s cannot be read: %v)", stream, err))
	}
	_ = reader.Close()
}

func pump(frames <-chan *nomad.StreamFrame, errs <-chan error, out io.Writer) error {
	for {
		select {
		case frame, ok := <-frames:
			if !ok || frame == nil {
				return nil
			}
			if _, err := out.Write(frame.Data); err != nil {
				return err
			}
		case err := <-errs:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

// lineWriter lets several logs write whole lines. The mutex owns the output.
type lineWriter struct {
	mu  sync.Mutex
	out io.Writer
}

func (w *lineWriter) line(prefix, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fmt.Fprintf(w.out, "%s  %s\n", prefix, text)
}

func (w *lineWriter) copy(prefix string, in io.Reader) error {
	reader := bufio.NewReaderSize(in, maxLine)
	for {
		line, err := reader.ReadSlice('\n')
		if text := strings.TrimSuffix(string(line), "\n"); text != "" || len(line) > 0 {
			w.line(prefix, text)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// agentLog copies an agent's log file.
func (f *Fleet) agentLog(ctx context.Context, path string, follow bool) error {
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return ErrDown
	}
	if err != nil {
		return err
	}
	defer file.Close()
	for {
		if _, err := io.Copy(f.out, file); err != nil || !follow || !pause(ctx, pollEvery) {
			return err
		}
	}
}
