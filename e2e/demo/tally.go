package demo

import (
	"context"
	"database/sql"
	"slices"

	"github.com/msrchat/msrchat/proof/check"
	"github.com/msrchat/msrchat/proof/journal"
)

// tally counts what journals say.
func tally(journals []*journal.Journal) (c Counts) {
	for _, j := range journals {
		for e := range j.All() {
			switch e.Kind {
			case journal.Typed:
				c.Typed++
			case journal.Acked:
				c.Acknowledged++
			case journal.Shown:
				c.Shown++
			}
		}
	}
	return c
}

// lookBack has the checker look at a run that goes on. What was typed since the
// journals were copied is left out of the log, so only kinds of violation that
// need no complete log are counted.
func lookBack(ctx context.Context, db *sql.DB, journals []*journal.Journal) (Checked, error) {
	copies := make([]*journal.Journal, len(journals))
	typed := make(map[[16]byte]bool)
	for i, j := range journals {
		copies[i] = journal.New(j.Device)
		for e := range j.All() {
			copies[i].Add(e)
			if e.Kind == journal.Typed {
				typed[e.ID] = true
			}
		}
	}
	run, err := check.Read(ctx, db, copies)
	if err != nil {
		return Checked{}, err
	}
	run.Log = slices.DeleteFunc(run.Log, func(r check.Row) bool { return !typed[r.ID] })
	run.Interrupted = true
	report := run.Check()
	return Checked{
		Lost:      report.Count(check.Lost) + report.Count(check.Renumbered),
		Doubled:   report.Count(check.Doubled) + report.Count(check.Repeated),
		Reordered: report.Count(check.Reordered) + report.Count(check.Disordered),
	}, nil
}
