// Package journal is what one device of a test or a measurement saw: what it
// typed, what was acknowledged under which number, what it displayed, and which
// servers it was on. Package check compares the journals of all devices with
// each other and with the log in MySQL.
package journal

import (
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"
)

// Kind says what an entry records.
type Kind string

// The kinds. A message is typed once; then it is acknowledged or refused, or
// its outcome stays unknown to this device. It is shown once for each time that it
// appears on the device's screen, also on the one that wrote it.
const (
	Typed    Kind = "typed"
	Acked    Kind = "acked"
	Refused  Kind = "refused" // for good: the client does not try again
	Shown    Kind = "shown"
	Online   Kind = "online"   // Detail: the chat server's instance
	Offline  Kind = "offline"  // Detail: why
	LoggedIn Kind = "loggedin" // first entry
	// Joined says from where the device shows a conversation: everything above
	// Seq, and whatever it was shown below it. Without a Conversation it says that
	// the device has listed its conversations: one that is not among the Joined of
	// that moment is shown from its first message on. Only the first Joined of a
	// conversation counts, since a device's store goes on where it ended.
	Joined Kind = "joined"
	// Left: the device was closed.
	Left Kind = "left"
	// Reset: the device learned that the logs were restored to an earlier time.
	Reset Kind = "reset"
	// Marked: the person has read the conversation up to Seq. Drafted: Text is what
	// they have begun to write in it.
	Marked  Kind = "marked"
	Drafted Kind = "drafted"
	// Stated: the device has the user's own state in the conversation: its Number,
	// the read mark in Seq, and the draft in Text.
	Stated Kind = "stated"
)

// kinds numbers the kinds for a record.
var kinds = []Kind{
	Typed, Acked, Refused, Shown, Online, Offline, LoggedIn, Joined, Left, Reset, Marked, Drafted, Stated,
}

func (k Kind) exists() bool { return slices.Contains(kinds, k) }

// Entry is one line of a journal. Which fields are set depends on the kind.
type Entry struct {
	At   time.Time
	Kind Kind
	// ID is the client message id, Conversation and Seq its place in the log
	// (0 while unknown), Sender the user who wrote it.
	ID           [16]byte
	Conversation uint64
	Seq          uint64
	Sender       uint64
	// Number is that of an own state, for Stated alone.
	Number uint64
	// Text is Digest of the message's text, or of the draft.
	Text   uint64
	Detail string
}

// Digest stands for a text in a journal.
func Digest(text string) uint64 { return xxhash.Sum64String(text) }

// Device is whose journal it is. One user may have several.
type Device struct {
	User uint64 `json:"user"`
	Name string `json:"name"` // unique among the journals of a run
}

// Journal records one device's entries in memory, in the order of the calls. It
// may be used from any goroutine; its mutex owns what it holds. A message costs
// 64 bytes each time that it is recorded, and the garbage collector nothing.
type Journal struct {
	Device Device

	mu      sync.Mutex
	chunks  [][]record // only the last one has room
	details []string
}

// record is an Entry without pointers.
type record struct {
	at                time.Duration // since began, by the monotonic clock
	id                [16]byte
	conversation, seq uint64
	sender            uint64 // or, of an own state, its number
	text              uint64
	detail            uint32 // its place in details, from 1; 0: none
	kind              uint8
}

// began is what the records' times count from, so that a step of the clock
// between two entries of one process does not change the time between them.
var began = time.Now()

// The chunks double from the first one's size to the largest: a journal of a few
// entries stays small, and a long one is never copied.
const (
	firstChunk   = 32
	largestChunk = 4096
)

// New returns an empty journal.
func New(d Device) *Journal { return &Journal{Device: d} }

// Add appends an entry; At is set to now where it is zero. The kind must be one
// of the constants.
func (j *Journal) Add(e Entry) {
	if e.At.IsZero() {
		e.At = time.Now()
	}
	kind := slices.Index(kinds, e.Kind)
	if kind < 0 {
		panic("journal: no such kind of entry: " + string(e.Kind))
	}
	r := record{
		at: e.At.Sub(began), kind: uint8(kind), id: e.ID,
		conversation: e.Conversation, seq: e.Seq, sender: e.Sender, text: e.Text,
	}
	if e.Kind == Stated {
		r.sender = e.Number
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if e.Detail != "" {
		j.details = append(j.details, e.Detail)
		r.detail = uint32(len(j.details))
	}
	last := len(j.chunks) - 1
	if last < 0 || len(j.chunks[last]) == cap(j.chunks[last]) {
		size := firstChunk
		if last >= 0 {
			size = min(2*cap(j.chunks[last]), largestChunk)
		}
		j.chunks = append(j.chunks, make([]record, 0, size))
		last++
	}
	j.chunks[last] = append(j.chunks[last], r)
}

// Len is how many entries were recorded so far.
func (j *Journal) Len() (n int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, c := range j.chunks {
		n += len(c)
	}
	return n
}

// All iterates over what was recorded before the call.
func (j *Journal) All() iter.Seq[Entry] {
	j.mu.Lock()
	defer j.mu.Unlock()
	// What lies below these lengths does not change any more.
	chunks, details := slices.Clone(j.chunks), j.details
	return func(yield func(Entry) bool) {
		for _, c := range chunks {
			for i := range c {
				if !yield(c[i].entry(details)) {
					return
				}
			}
		}
	}
}

// Entries returns a copy of what was recorded so far.
func (j *Journal) Entries() []Entry { return slices.AppendSeq(make([]Entry, 0, j.Len()), j.All()) }

func (r *record) entry(details []string) Entry {
	e := Entry{
		At: began.Add(r.at), Kind: kinds[r.kind], ID: r.id,
		Conversation: r.conversation, Seq: r.seq, Sender: r.sender, Text: r.text,
	}
	if e.Kind == Stated {
		e.Sender, e.Number = 0, r.sender
	}
	if r.detail > 0 {
		e.Detail = details[r.detail-1]
	}
	return e
}
