// Package journal is what one device of a test or a measurement saw: what it
// typed, what was acknowledged under which number, what it displayed, and which
// servers it was on. Package check compares the journals of all devices with
// each other and with the log in MySQL.
package journal

import (
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"
)

// Kind says what an entry records.
type Kind string

// The kinds. A message is typed once; then it is acknowledged or refused, or
// its fate stays unknown to this device. It is shown once for each time that it
// appears on the device's screen, whoever wrote it.
const (
	Typed    Kind = "typed"
	Acked    Kind = "acked"
	Refused  Kind = "refused" // for good: the client does not try again
	Shown    Kind = "shown"
	Online   Kind = "online"   // Detail: the chat server's instance
	Offline  Kind = "offline"  // Detail: why
	LoggedIn Kind = "loggedin" // first entry
)

// Entry is one line of a journal. Which fields are set depends on the kind.
type Entry struct {
	At   time.Time `json:"at"`
	Kind Kind      `json:"kind"`
	// ID is the client message id, Conversation and Seq its place in the log
	// (0 while unknown), Sender the user who wrote it.
	ID           [16]byte `json:"id,omitzero"`
	Conversation uint64   `json:"conversation,omitzero"`
	Seq          uint64   `json:"seq,omitzero"`
	Sender       uint64   `json:"sender,omitzero"`
	// Text is Digest of the message's text.
	Text   uint64 `json:"text,omitzero"`
	Detail string `json:"detail,omitzero"`
}

// Digest stands for a text in a journal.
func Digest(text string) uint64 { return xxhash.Sum64String(text) }

// Device is whose journal it is. One user may have several.
type Device struct {
	User uint64 `json:"user"`
	Name string `json:"name"` // unique among the journals of a run
}

// Journal records one device's entries in memory, in the order of the calls. It
// may be used from any goroutine; its mutex owns the entries.
type Journal struct {
	Device Device

	mu      sync.Mutex
	entries []Entry
}

// New returns an empty journal.
func New(d Device) *Journal { return &Journal{Device: d} }

// Add appends an entry; At is set to now where it is zero.
func (j *Journal) Add(e Entry) {
	if e.At.IsZero() {
		e.At = time.Now()
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.entries = append(j.entries, e)
}

// Entries returns what was recorded so far. The slice must not be changed.
func (j *Journal) Entries() []Entry {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.entries[:len(j.entries):len(j.entries)]
}
