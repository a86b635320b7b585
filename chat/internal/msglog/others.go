package msglog

import (
	"sync"
	"time"
)

// What a log knows of other writers of its conversations. Usually the people of a
// conversation take turns, and each one's server writes what they type: it has pushed the
// other's last message to them, and so knows that the head it remembers is old. Only when
// two type at the same moment do two servers take the same number.
//
// What others say is never taken for a head: it only has this log read the head anew. A
// head that is too high, of an event that a restored database does not have, would leave a
// gap.

const (
	// maxLearned heads wait for the writer, and maxConflicts conversations are remembered.
	// Beyond it all are forgotten: the next append finds out by a conflict.
	maxLearned   = 10_000
	maxConflicts = 10_000
	// conflictMemory is how long a conversation in which two servers took the same number
	// is left to its owner. Its people type at the same time, and may go on.
	conflictMemory = 10 * time.Second
)

// others is owned by its mutex.
type others struct {
	mu        sync.RWMutex
	learned   map[uint64]uint64    // heads that others told, by conversation
	conflicts map[uint64]time.Time // until when
}

func newOthers() *others {
	return &others{learned: make(map[uint64]uint64), conflicts: make(map[uint64]time.Time)}
}

// Learn tells the log that another server appended an event with this number. It does not
// block.
func (l *Log) Learn(conversation, seq uint64) {
	o := l.others
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.learned) >= maxLearned {
		clear(o.learned)
	}
	o.learned[conversation] = max(o.learned[conversation], seq)
}

// take removes what was learned.
func (o *others) take() map[uint64]uint64 {
	o.mu.RLock()
	none := len(o.learned) == 0
	o.mu.RUnlock()
	if none {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	learned := o.learned
	o.learned = make(map[uint64]uint64)
	return learned
}

// Conflicted says whether another server took this one's number in a conversation within
// the last conflictMemory.
func (l *Log) Conflicted(conversation uint64) bool {
	o := l.others
	o.mu.RLock()
	defer o.mu.RUnlock()
	until, ok := o.conflicts[conversation]
	return ok && time.Now().Before(until)
}

// conflict notes a conversation in which two servers took the same number.
func (o *others) conflict(conversation uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	if len(o.conflicts) >= maxConflicts {
		for id, until := range o.conflicts {
			if now.After(until) {
				delete(o.conflicts, id)
			}
		}
		if len(o.conflicts) >= maxConflicts {
			clear(o.conflicts)
		}
	}
	o.conflicts[conversation] = now.Add(conflictMemory)
}
