package faults

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/msrchat/msrchat/proof/check"
)

// keep writes down what a run leaves for whoever looks for the reason: the
// devices' journals, the rows of the logs, the servers' logs, and the plan.
func (s *suite) keep(rows []check.Row) error {
	dir := s.cfg.Evidence
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := os.CopyFS(filepath.Join(dir, "servers"), os.DirFS(s.arena.Logs())); err != nil {
		return fmt.Errorf("keep the servers' logs: %w", err)
	}
	journals := lines{path: filepath.Join(dir, "journals.jsonl")}
	for _, j := range s.people.crowd.Journals() {
		journals.each = append(journals.each, func(e *json.Encoder) error {
			for entry := range j.All() {
				if err := e.Encode(struct {
					Device string `json:"device"`
					Entry  any    `json:"entry"`
				}{j.Device.Name, entry}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	type row struct { // check.Row with names for JSON
		Conversation uint64   `json:"conversation"`
		Seq          uint64   `json:"seq"`
		Sender       uint64   `json:"sender"`
		ID           [16]byte `json:"id"`
		Text         uint64   `json:"text"`
		At           int64    `json:"at"`
	}
	log := lines{path: filepath.Join(dir, "log.jsonl"), each: []func(*json.Encoder) error{func(e *json.Encoder) error {
		for i := range rows {
			if err := e.Encode(row(rows[i])); err != nil {
				return err
			}
		}
		return nil
	}}}
	if err := errors.Join(journals.write(), log.write(), s.plan(dir)); err != nil {
		return err
	}
	s.result.Kept = dir
	return os.WriteFile(filepath.Join(dir, "report.txt"), []byte(s.result.String()), 0o600)
}

// plan writes the seed, the steps and when each was done.
func (s *suite) plan(dir string) error {
	f, err := os.Create(filepath.Join(dir, "plan.txt"))
	if err != nil {
		return err
	}
	fmt.Fprintf(f, "seed %d, %d people, %v messages/s\n", s.cfg.Seed, s.cfg.Clients, s.cfg.Rate)
	Print(f, s.cfg.Steps)
	return f.Close()
}

// lines is a file of one JSON value a line.
type lines struct {
	path string
	each []func(*json.Encoder) error
}

func (l lines) write() error {
	f, err := os.Create(l.path)
	if err != nil {
		return err
	}
	buffered := bufio.NewWriter(f)
	encoder := json.NewEncoder(buffered)
	for _, write := range l.each {
		if err := write(encoder); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	return errors.Join(buffered.Flush(), f.Close())
}
