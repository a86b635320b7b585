package msglog

import (
	"context"
	"crypto/rand"
	"time"
)

// What follows runs only when package planted has planted a bug.

// insertLater is for planted.AckBeforeCommit: if the process ends within this time,
// the statement is lost, and its rows are acknowledged already.
func (w *writer) insertLater(statement string) {
	const later = 300 * time.Millisecond
	time.AfterFunc(later, func() { _, _ = w.log.db.ExecContext(context.Background(), statement) })
}

// renamed is for planted.DedupeOff: rows that may be in the log get new ids, which
// the unique key does not refuse.
func renamed(rows []*row) []*row {
	for _, r := range rows {
		_, _ = rand.Read(r.event().ID[:]) // returns no error
	}
	return rows
}

// dropThousandth is for planted.DropThousandth: it takes every thousandth row
// out of the batch.
func (w *writer) dropThousandth(rows []*row) (kept, dropped []*row) {
	const thousand = 1000
	for _, r := range rows {
		if w.log.offered.Add(1)%thousand == 0 {
			dropped = append(dropped, r)
			continue
		}
		kept = append(kept, r)
	}
	return kept, dropped
}

// pretend gives the next numbers to rows that are not stored.
func (w *writer) pretend(rows []*row) {
	for _, r := range rows {
		*r.result() = Result{Seq: w.heads[r.req.conversation].Seq + 1, CreatedAt: time.Now().UnixMilli()}
	}
}
