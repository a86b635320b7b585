package journal

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// A journal in a file is JSON lines: the device, then its entries.

const (
	// maxLine bounds a line; the longest part is a Detail, an error's text.
	maxLine = 16 << 10
	// MaxEntries bounds the entries of a file: at 64 bytes each they fit into a
	// small machine's memory.
	MaxEntries = 20_000_000
)

// line is an Entry in a file; its id is hexadecimal.
type line struct {
	At           time.Time `json:"at"`
	Kind         Kind      `json:"kind"`
	ID           string    `json:"id,omitempty"`
	Conversation uint64    `json:"conversation,omitempty"`
	Seq          uint64    `json:"seq,omitempty"`
	Sender       uint64    `json:"sender,omitempty"`
	Number       uint64    `json:"number,omitempty"`
	Text         uint64    `json:"text,omitempty"`
	Detail       string    `json:"detail,omitempty"`
}

// Write writes what was recorded so far.
func (j *Journal) Write(w io.Writer) error {
	out := bufio.NewWriter(w)
	lines := json.NewEncoder(out)
	lines.SetEscapeHTML(false)
	if err := lines.Encode(j.Device); err != nil {
		return fmt.Errorf("write journal %s: %w", j.Device.Name, err)
	}
	for e := range j.All() {
		l := line{
			At: e.At.UTC(), Kind: e.Kind, Conversation: e.Conversation, Seq: e.Seq, Sender: e.Sender, Number: e.Number,
			Text: e.Text, Detail: e.Detail[:min(len(e.Detail), maxDetail)],
		}
		if e.ID != ([16]byte{}) {
			l.ID = hex.EncodeToString(e.ID[:])
		}
		if err := lines.Encode(l); err != nil {
			return fmt.Errorf("write journal %s: %w", j.Device.Name, err)
		}
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write journal %s: %w", j.Device.Name, err)
	}
	return nil
}

// maxDetail keeps a line below maxLine, however JSON has to write it.
const maxDetail = 2 << 10

// Read reads what Write wrote.
func Read(r io.Reader) (*Journal, error) {
	in := bufio.NewScanner(r)
	in.Buffer(nil, maxLine)
	if !in.Scan() {
		return nil, fmt.Errorf("read journal: it is empty (%w)", errors.Join(in.Err(), io.ErrUnexpectedEOF))
	}
	j := &Journal{}
	if err := json.Unmarshal(in.Bytes(), &j.Device); err != nil {
		return nil, fmt.Errorf("read journal: line 1 names no device: %w", err)
	}
	if j.Device.Name == "" || len(j.Device.Name) > maxDetail {
		return nil, errors.New("read journal: line 1 names no device")
	}
	for n := 2; in.Scan(); n++ {
		if n > MaxEntries {
			return nil, fmt.Errorf("read journal %s: it has more than %d entries", j.Device.Name, MaxEntries)
		}
		e, err := parse(in.Bytes())
		if err != nil {
			return nil, fmt.Errorf("read journal %s: line %d: %w", j.Device.Name, n, err)
		}
		j.Add(e)
	}
	if err := in.Err(); err != nil {
		return nil, fmt.Errorf("read journal %s: %w", j.Device.Name, err)
	}
	return j, nil
}

// The times that a journal can hold as they are.
var (
	earliest = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	latest   = time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)
)

func parse(b []byte) (Entry, error) {
	var l line
	if err := json.Unmarshal(b, &l); err != nil {
		return Entry{}, err
	}
	e := Entry{
		At: l.At, Kind: l.Kind, Conversation: l.Conversation, Seq: l.Seq, Sender: l.Sender, Number: l.Number,
		Text: l.Text, Detail: l.Detail,
	}
	switch {
	case !l.Kind.exists():
		return Entry{}, fmt.Errorf("there is no kind %.40q", l.Kind)
	case l.At.Before(earliest) || l.At.After(latest):
		return Entry{}, fmt.Errorf("the time %v is out of range", l.At)
	case len(l.Detail) > maxDetail:
		return Entry{}, errors.New("the detail is too long")
	}
	if l.ID != "" {
		id := []byte(l.ID[:min(len(l.ID), 2*len(e.ID))])
		if n, err := hex.Decode(e.ID[:], id); err != nil || n != len(e.ID) || len(l.ID) != 2*n {
			return Entry{}, fmt.Errorf("%.40q is no message id", l.ID)
		}
	}
	return e, nil
}
