package tui

import (
	"strings"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/client/store"
)

// draft is a text that is begun and not sent: as it was typed here, and as the
// library has it for all windows and devices of the user.
type draft struct {
	text string
	kept string // what the library has, as far as this window knows
	// edits is OwnState.Edits when kept was set or taken over: a state that has
	// fewer is older.
	edits uint64
	// restored is the beginning of text that came back because it could not be
	// sent.
	restored string
}

// unkept says that the library has another text than was typed here.
func (d *draft) unkept() bool { return d.text != d.kept }

// take takes over the draft that the library has: another window or device has set
// it, or it was put together from theirs and the one of here. busy says that
// somebody types here: then, as with a text that is not kept yet, what is here goes
// below what is new.
func (d *draft) take(own client.OwnState, busy bool) {
	if own.Edits < d.edits {
		return // of before the last one was kept
	}
	theirs := clean(own.Draft)
	if theirs != d.kept {
		above, found := strings.CutSuffix(theirs, d.kept)
		switch {
		case found && d.kept != "": // a text of theirs was put above
			d.text = above + d.text
		case d.unkept() || busy:
			d.text = joinDrafts(theirs, d.text)
		default:
			d.text = theirs
		}
		d.restored = ""
	}
	d.kept, d.edits = theirs, own.Edits
}

// joinDrafts puts the second draft below the first. What has all of the other one
// is enough.
func joinDrafts(first, second string) string {
	if strings.Contains(second, first) {
		return second
	}
	return store.JoinDrafts(first, second)
}

// adopt takes over the draft of a chat that became a part of this one, as the
// library does.
func (d *draft) adopt(other draft) {
	d.text, d.restored = joinDrafts(d.text, other.text), ""
	d.kept = store.JoinDrafts(d.kept, other.kept)
}

// giveBack puts a text that could not be sent to where it came from: after those
// that came back before it, and before what was typed since.
func (d *draft) giveBack(body string) {
	if !strings.HasPrefix(d.text, d.restored) {
		d.restored = "" // it was changed since
	}
	rest := strings.TrimPrefix(d.text[len(d.restored):], "\n")
	d.restored = strings.TrimPrefix(d.restored+"\n"+body, "\n")
	d.text = strings.TrimSuffix(d.restored+"\n"+rest, "\n")
}
