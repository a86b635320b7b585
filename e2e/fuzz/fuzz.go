// Package fuzz drives everything that an outsider can reach, with valid, odd and hostile
// values: every operation of the gate's OpenAPI document, every request of chat.proto,
// and every call of relay.proto. It looks only from outside, as a client, a person who
// chats, and an operator who reads /metrics do. docs/fuzz.md has the rules.
package fuzz

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Target is a running system. All addresses are host:port.
type Target struct {
	Gate string
	// Chats and Relays are the chat servers' listeners, in the same order.
	Chats, Relays []string
	// Metrics are where the processes tell their own, by name. A process that holds
	// several servers is named once.
	Metrics map[string]string
	// Mail is the newest mail to an address.
	Mail func(address string) (text string, ok bool)
}

// Config is what a run is. Zero values are the defaults.
type Config struct {
	Target Target
	// Seed decides every case: which comes when follows from how fast they are.
	Seed     uint64
	Duration time.Duration
	// Workers do cases of each kind at the same time; 2 if 0.
	Workers int
	// Patience is how long an answer may take; 15 s if 0.
	Patience time.Duration
	// Most ends the run at that many findings; 20 if 0.
	Most int
	// Only are the kinds of cases to do; all if empty.
	Only []string
	// Evidence is the folder that findings are kept in; nothing is kept if empty.
	Evidence string
	// Output gets a line every Progress; none if nil.
	Output   io.Writer
	Progress time.Duration
}

// Rules that findings break.
const (
	ruleServerError  = "server error"  // 5xx but 503 with a time; internal, unavailable without one
	ruleUndocumented = "undocumented"  // an answer that the contract does not have
	ruleUnanswered   = "unanswered"    // a request without exactly one answer in time
	ruleShown        = "shown"         // an escape, an invisible byte, in what people see
	ruleRepeats      = "repeats"       // a refusal that repeats what was sent
	ruleLog          = "log"           // what was acknowledged is not in the page, or the page has a gap
	ruleHonest       = "honest people" // they wait too long
	ruleUnreached    = "unreached"     // a request that never had a result: nothing was tried
	ruleResources    = "resources"     // goroutines or memory did not come back
)

// Finding is a broken rule.
type Finding struct {
	Rule string
	// Where is the operation or request, What what came, the same for the same fault.
	Where, What string
	// Times is how often it was found, Kept the folder with the trace of the first.
	Times int
	Kept  string
}

func (f *Finding) String() string { return fmt.Sprintf("%s: %s: %s", f.Rule, f.Where, f.What) }

// run is a run under way.
type run struct {
	cfg    Config
	doc    *document
	world  *world
	ledger ledger
	relays *relays
	// stop ends the cases.
	stop context.CancelFunc

	mu     sync.Mutex // owns the fields below
	result Result
	byKey  map[string]*Finding
	// answers has the kind of answer that each kind of request got first.
	answers map[string]string

	cases, requests atomic.Int64
}

// Run fuzzes a system for a time, and then looks whether it is as before. The error
// says that it could not; Result.Err has the findings.
func Run(ctx context.Context, cfg Config) (*Result, error) {
	r, err := begin(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer r.relays.close()
	watch, err := r.watch(ctx)
	if err != nil {
		return nil, err
	}
	defer watch.close()
	before, err := r.usage(ctx)
	if err != nil {
		return nil, err
	}
	started := time.Now()
	// Not a deadline: what it ends would look like an answer that was late.
	cases, stop := context.WithCancel(ctx)
	defer stop()
	defer time.AfterFunc(cfg.Duration, stop).Stop()
	r.stop = stop
	r.work(cases)
	took := time.Since(started)
	watch.after(ctx)
	if len(cfg.Only) == 0 {
		r.unreached(r.snapshot(ctx, took))
	}
	if ctx.Err() == nil {
		r.verify(ctx)
		r.settle(ctx, before)
	}
	watch.close()
	result := r.snapshot(ctx, took)
	result.Honest = watch.latencies()
	return result, nil
}

// snapshot is the result so far. Connections that are closing still add to the run's.
func (r *run) snapshot(ctx context.Context, took time.Duration) *Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	result := r.result
	result.Took, result.Interrupted = took, ctx.Err() != nil
	result.Findings = slices.Clone(result.Findings)
	result.Counts = make(map[string]map[string]int)
	for what, of := range r.result.Counts {
		result.Counts[what] = maps.Clone(of)
	}
	return &result
}

func (r *run) found() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.result.Findings)
}

// newRun is a run of which nothing has happened yet.
func newRun(cfg Config) *run {
	cfg.Workers = cmp.Or(cfg.Workers, 2)
	cfg.Patience = cmp.Or(cfg.Patience, 15*time.Second)
	cfg.Most = cmp.Or(cfg.Most, 20)
	cfg.Progress = cmp.Or(cfg.Progress, 10*time.Second)
	return &run{
		cfg: cfg, byKey: make(map[string]*Finding), answers: make(map[string]string), stop: func() {},
		relays: &relays{addresses: cfg.Target.Relays},
		result: Result{Seed: cfg.Seed, Counts: make(map[string]map[string]int)},
	}
}

// begin reads the document and makes the people.
func begin(ctx context.Context, cfg Config) (*run, error) {
	r := newRun(cfg)
	text, err := fetch(ctx, "http://"+cfg.Target.Gate+"/openapi.yaml")
	if err != nil {
		return nil, err
	}
	if r.doc, err = newDocument(text); err != nil {
		return nil, err
	}
	r.world, err = r.newWorld(ctx)
	return r, err
}

// work does cases until ctx ends.
func (r *run) work(ctx context.Context) {
	var workers sync.WaitGroup
	number := uint64(0)
	for _, k := range kinds {
		if !k.chosen(r.cfg.Only) {
			continue
		}
		for range max(1, r.cfg.Workers*k.share/100) {
			number++
			w := &worker{run: r, number: number}
			workers.Go(func() { w.loop(ctx, k) })
		}
	}
	workers.Go(func() { r.report(ctx) })
	workers.Wait()
}

// report writes how far it is.
func (r *run) report(ctx context.Context) {
	if r.cfg.Output == nil {
		return
	}
	ticker := time.NewTicker(r.cfg.Progress)
	defer ticker.Stop()
	for started := time.Now(); ; {
		select {
		case <-ticker.C:
			fmt.Fprintf(r.cfg.Output, "%8v  %9d cases %10d requests %4d findings\n",
				time.Since(started).Round(time.Second), r.cases.Load(), r.requests.Load(), r.found())
		case <-ctx.Done():
			return
		}
	}
}

// count notes what came of a request.
func (r *run) count(what, came string) {
	r.requests.Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	of := r.result.Counts[what]
	if of == nil {
		of = make(map[string]int)
		r.result.Counts[what] = of
	}
	of[came]++
}

// find notes a broken rule, once for each rule, place and text.
func (r *run) find(t *Trace, rule, where, format string, args ...any) {
	found := &Finding{Rule: rule, Where: where, What: fmt.Sprintf(format, args...), Times: 1}
	r.mu.Lock()
	defer r.mu.Unlock()
	key := rule + where + shape(found.What)
	if before := r.byKey[key]; before != nil {
		before.Times++
		return
	}
	if len(r.result.Findings) >= r.cfg.Most {
		return
	}
	r.byKey[key] = found
	r.result.Findings = append(r.result.Findings, found)
	if r.cfg.Output != nil {
		fmt.Fprintf(r.cfg.Output, "FOUND %s\n", found)
	}
	if t != nil && r.cfg.Evidence != "" {
		found.Kept = filepath.Join(r.cfg.Evidence, fmt.Sprintf("finding-%02d", len(r.result.Findings)))
		if err := t.Save(found.Kept, found); err != nil {
			found.Kept = "not kept: " + err.Error()
		}
	}
	if len(r.result.Findings) >= r.cfg.Most {
		r.stop()
	}
}

// shape is a text without its numbers and values, to count the same fault once.
func shape(s string) string {
	out := make([]rune, 0, len(s))
	for _, c := range s {
		if c == '"' {
			break // a value follows
		}
		if c < '0' || c > '9' {
			out = append(out, c)
		}
	}
	return string(out)
}

func joined(errs ...error) error { return errors.Join(errs...) }

// Folder is a new one for the evidence of a run.
func Folder(seed uint64) string {
	return filepath.Join(os.TempDir(), fmt.Sprintf("msrchat-fuzz-%d-%d", seed, os.Getpid()))
}
