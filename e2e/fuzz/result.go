package fuzz

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// Result is what came of a run.
type Result struct {
	Seed        uint64
	Took        time.Duration
	Interrupted bool
	// Counts are how often each request came to what: the status, the code of a failure,
	// or the end of the connection.
	Counts   map[string]map[string]int
	Findings []*Finding
	// Honest are the times of the honest people's messages, sorted.
	Honest []time.Duration
	// Before and After are what each process used.
	Before, After map[string]Usage
}

// Usage is what a process uses.
type Usage struct {
	Goroutines float64
	HeapMiB    float64
}

// Err is nil if nothing was found.
func (r *Result) Err() error {
	var all []error
	for _, f := range r.Findings {
		all = append(all, errors.New(f.String()))
	}
	return errors.Join(all...)
}

// Requests is how many there were.
func (r *Result) Requests() (n int) {
	for _, of := range r.Counts {
		for _, times := range of {
			n += times
		}
	}
	return n
}

// String is the table of requests, and what was found.
func (r *Result) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "request\ttimes\tcame to\t")
	for _, what := range slices.Sorted(maps.Keys(r.Counts)) {
		total := 0
		var came []string
		of := r.Counts[what]
		for _, c := range slices.SortedFunc(maps.Keys(of), func(a, b string) int { return of[b] - of[a] }) {
			total += of[c]
			came = append(came, fmt.Sprintf("%s %d", c, of[c]))
		}
		fmt.Fprintf(w, "%s\t%d\t%s\n", what, total, strings.Join(came, ", "))
	}
	_ = w.Flush() // into memory
	fmt.Fprintf(&b, "\n%d requests in %v, seed %d\n", r.Requests(), r.Took.Round(time.Second), r.Seed)
	if n := len(r.Honest); n > 0 {
		fmt.Fprintf(&b, "beside them %d honest messages, read after %v (median), %v (99 of 100), %v (worst)\n", n,
			r.Honest[n/2].Round(100*time.Microsecond), r.Honest[n*99/100].Round(100*time.Microsecond),
			r.Honest[n-1].Round(100*time.Microsecond))
	}
	for _, name := range slices.Sorted(maps.Keys(r.After)) {
		before, after := r.Before[name], r.After[name]
		fmt.Fprintf(&b, "%s: goroutines %.0f before, %.0f after; heap %.0f MiB before, %.0f after\n",
			name, before.Goroutines, after.Goroutines, before.HeapMiB, after.HeapMiB)
	}
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "FOUND %d times: %s\n", f.Times, f)
		if f.Kept != "" {
			fmt.Fprintf(&b, "      kept in %s\n", f.Kept)
		}
	}
	if r.Interrupted {
		b.WriteString("the run was interrupted\n")
	}
	return b.String()
}

// usage reads what the processes use.
func (r *run) usage(ctx context.Context) (map[string]Usage, error) {
	out := make(map[string]Usage)
	for name, url := range r.cfg.Target.Metrics {
		text, err := fetch(ctx, url)
		if err != nil {
			return nil, fmt.Errorf("the metrics of %s: %w", name, err)
		}
		gauge := func(name string) (value float64) {
			for line := range strings.Lines(string(text)) {
				if rest, ok := strings.CutPrefix(line, name+" "); ok {
					value, _ = strconv.ParseFloat(strings.TrimSpace(rest), 64)
				}
			}
			return value
		}
		out[name] = Usage{gauge("go_goroutines"), gauge("go_memstats_heap_alloc_bytes") / (1 << 20)}
	}
	return out, nil
}

const (
	// settleLimit is longer than two minutes, after which the runtime collects garbage of a
	// process that does little.
	settleLimit = 150 * time.Second
	// moreGoroutines are timers and pools that grew; a goroutine for each request or
	// connection would be thousands. moreHeap are caches, which have bounds (ARCHITECTURE.md),
	// and the garbage that a heap of any size may have.
	moreGoroutines = 50
	moreHeap       = 64
)

// settle waits until every process is as before.
func (r *run) settle(ctx context.Context, before map[string]Usage) {
	r.relays.close()
	r.mu.Lock()
	r.result.Before = before
	r.mu.Unlock()
	until := time.Now().Add(settleLimit)
	for {
		after, err := r.usage(ctx)
		if err != nil {
			r.find(nil, ruleResources, "metrics", "%v", err)
			return
		}
		r.mu.Lock()
		r.result.After = after
		r.mu.Unlock()
		var worst string
		for name, a := range after {
			if a.Goroutines > before[name].Goroutines+moreGoroutines || a.HeapMiB > 2*before[name].HeapMiB+moreHeap {
				worst = name
			}
		}
		switch {
		case worst == "" || ctx.Err() != nil:
			return
		case time.Now().After(until):
			r.find(nil, ruleResources, worst, "%+v before, %+v after %v", before[worst], after[worst], settleLimit)
			return
		}
		pause(ctx, time.Second)
	}
}

// unreached finds what was asked for and never once answered with a result: the rules
// would hold of it whatever it did.
func (r *run) unreached(so *Result) {
	// few requests say nothing.
	const few = 60
	for what, of := range so.Counts {
		total, good := 0, 0
		for came, n := range of {
			total += n
			if came == "answered" || strings.HasPrefix(came, "2") {
				good += n
			}
		}
		real := slices.ContainsFunc(r.doc.operations, func(o *operation) bool { return o.String() == what }) ||
			bodies.Fields().ByName(protoreflect.Name(what)) != nil
		if real && total > few && good == 0 {
			r.find(nil, ruleUnreached, what, "none of %d requests had a result", total)
		}
	}
}

// Replay does the steps of a trace again on a running system, as often as asked, and
// says what it found.
func Replay(ctx context.Context, cfg Config, t *Trace, times int) (*Result, error) {
	cfg.Seed = t.Seed // the same people
	r, err := begin(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer r.relays.close()
	started := time.Now()
	err = r.replay(ctx, t, times)
	return r.snapshot(ctx, time.Since(started)), err
}

func (r *run) replay(ctx context.Context, t *Trace, times int) error {
	for range times {
		self, err := r.register(ctx, "again"+newValues(uint64(time.Now().UnixNano()), 0, 0).word())
		if err != nil {
			return err
		}
		p := r.player(&Trace{Kind: t.Kind, Seed: t.Seed, Worker: t.Worker, N: t.N, Secrets: r.world.secrets()})
		p.trace.Secrets[self.token] = "self"
		for was, who := range t.Secrets {
			for is, whose := range p.trace.Secrets {
				if who == whose {
					p.secrets.add(was, is)
				}
			}
		}
		for _, s := range t.Steps {
			p.again(ctx, s)
		}
		p.end()
		r.cases.Add(1)
	}
	return nil
}
