package cli_test

import (
	"fmt"
	"testing"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"

	"github.com/msrchat/msrchat/client/internal/fake"
)

// Who sends has read what is above the message, as on the screen; their other devices
// learn it when the command ends.
func TestSendRaisesTheReadMark(t *testing.T) {
	w := newWorld(t)
	w.register("ann")
	w.register("bob")
	conv := w.log.Open("ann", "bob")
	for range 3 {
		w.log.Say(conv, "bob", "hello")
	}
	read := func(want uint64) {
		t.Helper()
		// The command waits for half a second; on a busy machine the next one tells it.
		w.until(fmt.Sprintf("ann has read %d", want), func() bool {
			own := w.log.Own(conv, "ann")
			return own.GetReadSeq() == want && own.GetReadOrdinal() == want
		})
	}
	w.ok(words("send --profile ann --to bob hello"))
	read(4)
	w.log.Say(conv, "bob", "and you?")
	w.ok(words("send --profile ann --lines --to bob"), stdin("fine\nthanks\n"))
	read(7)
	if own := w.log.Own(conv, "bob"); own != nil {
		t.Errorf("bob has read %v", own)
	}
}

// A server that does not take the read mark does not keep the command.
func TestSendDoesNotDependOnTheReadMark(t *testing.T) {
	w := newWorld(t)
	w.register("ann")
	w.register("bob")
	w.chat.Do(func(f *fake.Faults) {
		f.Own = func(*chatv1.SetOwnState) error { return fake.Unavailable(time.Hour) }
	})
	if out := w.ok(words("send --profile ann --to bob hello")); out != "1\n" {
		t.Errorf("send printed %q", out)
	}
	w.chat.Do(func(f *fake.Faults) { f.Own = nil })
	w.ok(words("send --profile ann --to bob again")) // tells both
	w.until("ann has read both", func() bool {
		return w.log.Own(w.log.Open("ann", "bob"), "ann").GetReadSeq() == 2
	})
}
