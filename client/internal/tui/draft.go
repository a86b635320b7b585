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

// take takes over the draft that another window or device has set, or that the
// library has put together from both. busy says that somebody types here: then,
// and where something typed here is not in it, that is put below.
func (d *draft) take(own client.OwnState, busy bool) {
	theirs := clean(own.Draft)
	// The library had it before what was kept last, which replaced it.
	replaced := own.Edits < d.edits
	if theirs != d.kept {
		above, joined := strings.CutSuffix(theirs, d.kept)
		switch {
		case joined && d.kept != "": // a text of elsewhere was put above the one of here
			d.text = above + d.text
		case !d.unkept() && !replaced && !busy:
			d.text = theirs
		case !strings.Contains(d.text, theirs):
			d.text = store.JoinDrafts(theirs, d.text)
		}
		d.restored = ""
	}
	if !replaced {
		d.kept, d.edits = theirs, own.Edits
	}
}

// adopt takes over the draft of a chat that became a part of this one.
func (d *draft) adopt(other draft) {
	d.text, d.restored = store.JoinDrafts(d.text, other.text), ""
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
