package check

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/msrchat/msrchat/proof/journal"
)

// A run in a folder, to be looked at and checked again later:
//
//	run.json         what the caller knew: when it was quiet, the members, …
//	log.jsonl        the rows
//	states.jsonl     the own states
//	journals/N.jsonl the journals, see package journal
const (
	runFile    = "run.json"
	logFile    = "log.jsonl"
	stateFile  = "states.jsonl"
	journalDir = "journals"
)

// The limits of what is read.
const (
	maxRunFile  = 256 << 20
	maxRow      = 256 << 10 // a draft, escaped
	maxRows     = 50_000_000
	maxJournals = 100_000
)

// facts are the rest of a Run in its file.
type facts struct {
	Quiet       time.Time           `json:"quiet,omitzero"`
	Heartbeat   time.Duration       `json:"heartbeat_ns"`
	Interrupted bool                `json:"interrupted,omitempty"`
	Minimum     int                 `json:"minimum,omitempty"`
	Journals    int                 `json:"journals"`
	Members     map[uint64][]uint64 `json:"members"`
}

// row is a Row in its file.
type row struct {
	Conversation uint64 `json:"conversation"`
	Seq          uint64 `json:"seq"`
	Sender       uint64 `json:"sender"`
	ID           string `json:"id"`
	Text         uint64 `json:"text"`
	At           int64  `json:"at_ms"`
}

// row takes the form of the file.
func (r Row) row() row {
	return row{r.Conversation, r.Seq, r.Sender, hex.EncodeToString(r.ID[:]), r.Text, r.At}
}

func (l row) parse() (Row, error) {
	id, err := hex.DecodeString(l.ID)
	if err != nil || len(id) != 16 {
		return Row{}, fmt.Errorf("%.40q is no message id", l.ID)
	}
	return Row{l.Conversation, l.Seq, l.Sender, [16]byte(id), l.Text, l.At}, nil
}

// state is a State in its file.
type state struct {
	Conversation uint64 `json:"conversation"`
	User         uint64 `json:"user"`
	Number       uint64 `json:"number"`
	Read         uint64 `json:"read"`
	Draft        string `json:"draft"`
}

// Save writes the run into a folder, which is made.
func (r *Run) Save(dir string) error {
	if err := r.save(dir); err != nil {
		return fmt.Errorf("save run: %w", err)
	}
	return nil
}

func (r *Run) save(dir string) error {
	if err := os.MkdirAll(filepath.Join(dir, journalDir), 0o755); err != nil {
		return err
	}
	for i, j := range r.Journals {
		if err := create(journalFile(dir, i), j.Write); err != nil {
			return err
		}
	}
	if err := create(filepath.Join(dir, logFile), func(w io.Writer) error {
		return writeLines(w, r.Log, Row.row)
	}); err != nil {
		return err
	}
	if err := create(filepath.Join(dir, stateFile), func(w io.Writer) error {
		return writeLines(w, r.States, func(s State) state { return state(s) })
	}); err != nil {
		return err
	}
	// Last, so that a folder without it is seen to be half written.
	return create(filepath.Join(dir, runFile), func(w io.Writer) error {
		return json.NewEncoder(w).Encode(facts{
			r.Quiet, r.Heartbeat, r.Interrupted, r.Minimum, len(r.Journals), r.Members,
		})
	})
}

func journalFile(dir string, i int) string {
	return filepath.Join(dir, journalDir, fmt.Sprintf("%05d.jsonl", i+1))
}

func create(path string, write func(io.Writer) error) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := bufio.NewWriterSize(f, 64<<10)
	if err := write(w); err != nil {
		return err
	}
	return w.Flush()
}

// Load reads what Save wrote.
func Load(dir string) (*Run, error) {
	run, err := load(dir)
	if err != nil {
		return nil, fmt.Errorf("load run: %w", err)
	}
	return run, nil
}

func load(dir string) (*Run, error) {
	var f facts
	if err := open(filepath.Join(dir, runFile), func(r io.Reader) error {
		return json.NewDecoder(io.LimitReader(r, maxRunFile)).Decode(&f)
	}); err != nil {
		return nil, err
	}
	if f.Journals < 0 || f.Journals > maxJournals {
		return nil, fmt.Errorf("%d journals, at most %d", f.Journals, maxJournals)
	}
	run := &Run{
		Quiet: f.Quiet, Heartbeat: f.Heartbeat, Interrupted: f.Interrupted, Minimum: f.Minimum, Members: f.Members,
	}
	if err := open(filepath.Join(dir, logFile), func(r io.Reader) (err error) {
		run.Log, err = readLines(r, row.parse)
		return err
	}); err != nil {
		return nil, err
	}
	if err := open(filepath.Join(dir, stateFile), func(r io.Reader) (err error) {
		run.States, err = readLines(r, func(s state) (State, error) { return State(s), nil })
		return err
	}); err != nil {
		return nil, err
	}
	for i := range f.Journals {
		if err := open(journalFile(dir, i), func(r io.Reader) error {
			j, err := journal.Read(r)
			run.Journals = append(run.Journals, j)
			return err
		}); err != nil {
			return nil, err
		}
	}
	return run, nil
}

func open(path string, read func(io.Reader) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := read(f); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// writeLines writes values as lines of JSON, each in the form that it has there.
func writeLines[T, L any](w io.Writer, values []T, form func(T) L) error {
	lines := json.NewEncoder(w)
	for _, v := range values {
		if err := lines.Encode(form(v)); err != nil {
			return err
		}
	}
	return nil
}

func readLines[T, L any](r io.Reader, parse func(L) (T, error)) ([]T, error) {
	in := bufio.NewScanner(r)
	in.Buffer(nil, maxRow)
	var values []T
	for in.Scan() {
		if len(values) == maxRows {
			return nil, fmt.Errorf("more than %d lines", maxRows)
		}
		var l L
		if err := json.Unmarshal(in.Bytes(), &l); err != nil {
			return nil, fmt.Errorf("line %d: %w", len(values)+1, err)
		}
		v, err := parse(l)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", len(values)+1, err)
		}
		values = append(values, v)
	}
	if err := in.Err(); err != nil {
		return nil, fmt.Errorf("line %d: %w", len(values)+1, err)
	}
	return values, nil
}
