package journal_test

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/msrchat/msrchat/proof/journal"
)

func sample() []journal.Entry {
	at := time.Now()
	id := [16]byte{1, 2, 3, 15: 255}
	return []journal.Entry{
		{At: at, Kind: journal.LoggedIn},
		{At: at.Add(1), Kind: journal.Online, Detail: "chat-1"},
		{At: at.Add(2), Kind: journal.Joined, Conversation: 7, Seq: 1<<62 - 1},
		{At: at.Add(3), Kind: journal.Typed, ID: id, Conversation: 7, Sender: 9, Text: journal.Digest("你好")},
		{At: at.Add(time.Second), Kind: journal.Acked, ID: id, Conversation: 7, Seq: 3, Sender: 9, Text: 1<<64 - 1},
		{At: at.Add(time.Second), Kind: journal.Shown, ID: id, Conversation: 7, Seq: 3, Sender: 9},
		{At: at.Add(-time.Hour), Kind: journal.Refused, ID: id, Detail: "invalid: <\"no\">\n"},
		{At: at, Kind: journal.Offline, Detail: "chat-1 is silent"},
		{At: at, Kind: journal.Reset},
		{At: at, Kind: journal.Marked, Conversation: 7, Seq: 3},
		{At: at, Kind: journal.Drafted, Conversation: 7, Text: journal.Digest("")},
		{At: at, Kind: journal.Stated, Conversation: 7, Number: 4, Seq: 3, Text: journal.Digest("und")},
		{At: at, Kind: journal.Left},
	}
}

func TestEntriesComeBack(t *testing.T) {
	j := journal.New(journal.Device{User: 9, Name: "ann/1"})
	want := sample()
	for _, e := range want {
		j.Add(e)
	}
	if diff := cmp.Diff(want, j.Entries()); diff != "" {
		t.Errorf("recorded -, got +:\n%s", diff)
	}
	var file bytes.Buffer
	if err := j.Write(&file); err != nil {
		t.Fatal(err)
	}
	again, err := journal.Read(&file)
	if err != nil {
		t.Fatal(err)
	}
	if again.Device != j.Device {
		t.Errorf("the device came back as %+v", again.Device)
	}
	if diff := cmp.Diff(want, again.Entries()); diff != "" {
		t.Errorf("written -, read +:\n%s", diff)
	}
}

// An iteration sees what was there before it, while others go on writing.
func TestManyEntries(t *testing.T) {
	j := journal.New(journal.Device{User: 1, Name: "d"})
	const writers, each = 4, 20_000
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			for i := range each {
				j.Add(journal.Entry{Kind: journal.Shown, Seq: uint64(i) + 1})
			}
		})
	}
	all.Go(func() {
		for range 20 {
			before, n := j.Len(), 0
			for e := range j.All() {
				if e.Seq == 0 || e.At.IsZero() {
					t.Errorf("entry %d is %+v", n, e)
				}
				n++
			}
			if n < before {
				t.Errorf("%d entries of at least %d", n, before)
			}
		}
	})
	all.Wait()
	if j.Len() != writers*each || len(j.Entries()) != writers*each {
		t.Errorf("%d entries, %d in the copy", j.Len(), len(j.Entries()))
	}
	for range j.All() {
		break // ending early is allowed
	}
}

func TestUnknownKind(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("an unknown kind was recorded")
		}
	}()
	journal.New(journal.Device{}).Add(journal.Entry{Kind: "sang"})
}

func TestReadRefuses(t *testing.T) {
	const head = `{"user":1,"name":"a"}` + "\n"
	const typed = head + `{"at":"2026-01-01T00:00:00Z","kind":"typed",`
	for name, file := range map[string]string{
		"empty":            "",
		"no JSON":          "x",
		"no name":          `{"user":1}`,
		"a long name":      `{"name":"` + strings.Repeat("a", 5000) + `"}`,
		"half a line":      head + `{"at":"2026-01-01T00:00:00Z","ki`,
		"no kind":          head + `{"at":"2026-01-01T00:00:00Z"}`,
		"an unknown kind":  head + `{"at":"2026-01-01T00:00:00Z","kind":"sang"}`,
		"no time":          head + `{"kind":"typed"}`,
		"a time far away":  head + `{"at":"9026-01-01T00:00:00Z","kind":"typed"}`,
		"a short id":       typed + `"id":"00"}`,
		"a long id":        typed + `"id":"` + strings.Repeat("0", 34) + `"}`,
		"no id":            typed + `"id":"` + strings.Repeat("g", 32) + `"}`,
		"a negative":       typed + `"seq":-1}`,
		"an endless line":  typed + `"x":"` + strings.Repeat("a", 20_000) + `"}`,
		"a long detail":    typed + `"detail":"` + strings.Repeat("a", 5000) + `"}`,
		"an endless start": strings.Repeat("a", 20_000),
	} {
		if j, err := journal.Read(strings.NewReader(file)); err == nil {
			t.Errorf("%s: read as %+v with %d entries", name, j.Device, j.Len())
		}
	}
}

// What is read, is written in the same way again.
func FuzzRead(f *testing.F) {
	j := journal.New(journal.Device{User: 9, Name: "ann/1"})
	for _, e := range sample() {
		j.Add(e)
	}
	var file bytes.Buffer
	if err := j.Write(&file); err != nil {
		f.Fatal(err)
	}
	f.Add(file.Bytes())
	f.Add([]byte("{}\n{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		j, err := journal.Read(bytes.NewReader(b))
		if err != nil {
			return
		}
		var file bytes.Buffer
		if err := j.Write(&file); err != nil {
			t.Fatal(err)
		}
		again, err := journal.Read(bytes.NewReader(file.Bytes()))
		if err != nil {
			t.Fatalf("not read again: %v\n%s", err, file.Bytes())
		}
		if diff := cmp.Diff(j.Entries(), again.Entries()); diff != "" || again.Device != j.Device {
			t.Errorf("read -, read again +:\n%s", diff)
		}
	})
}
