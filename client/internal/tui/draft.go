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
	kept string // what the library has, as far as this window knows; clean
	raw  string // kept, not cleaned
	// sets is how many times this window has set the draft, the write under way
	// included: an event with fewer is older than the text here.
	sets uint64
	// writing is the text that is being set, until an answer or an event shows that the
	// library has it; nil if there is none.
	writing *string
	// restored is the beginning of text that came back because it could not be
	// sent.
	restored string
}

// unkept says that the library has another text than was typed here.
func (d *draft) unkept() bool { return d.text != d.kept }

// set begins to keep the text; failed or written ends that.
func (d *draft) set() (known, text string) {
	known, text = d.raw, d.text
	d.sets++
	d.writing = &text
	return known, text
}

// failed: the library does not have the text.
func (d *draft) failed() {
	d.sets--
	d.writing = nil
}

// written notes that the library has the text that was being set. It is false if that
// was noted before: an event may come before the answer, and is then the newer one.
func (d *draft) written() bool {
	if d.writing == nil {
		return false
	}
	d.kept, d.raw, d.writing = *d.writing, *d.writing, nil
	return true
}

// take takes over the library's draft: another window or device has set it, or it was
// joined from theirs and the one here. busy says that the user is typing here: then,
// as with a text that is not kept yet, what is here goes below what is new.
func (d *draft) take(own client.OwnState, busy bool) {
	theirs := clean(own.Draft)
	if theirs != d.kept {
		above, found := strings.CutSuffix(theirs, d.kept)
		switch {
		case found && d.kept != "": // a text of theirs was put above
			d.text = above + d.text
		case d.unkept() || busy:
			d.text = store.JoinDrafts(theirs, d.text)
		default:
			d.text = theirs
		}
		d.restored = ""
	}
	d.kept, d.raw = theirs, own.Draft
}

// adopt joins the draft of a chat that was merged into this one, as the library does.
func (d *draft) adopt(other draft) {
	d.text, d.restored = store.JoinDrafts(d.text, other.text), ""
	d.kept = store.JoinDrafts(d.kept, other.kept)
	d.raw = store.JoinDrafts(d.raw, other.raw)
	d.sets += other.sets
	if other.writing != nil {
		d.writing = other.writing
	}
}

// giveBack puts back a text that could not be sent: below those that came back before
// it, and above what was typed since.
func (d *draft) giveBack(body string) {
	if !strings.HasPrefix(d.text, d.restored) {
		d.restored = "" // it was changed since
	}
	rest := strings.TrimPrefix(d.text[len(d.restored):], "\n")
	d.restored = strings.TrimPrefix(d.restored+"\n"+body, "\n")
	d.text = strings.TrimSuffix(d.restored+"\n"+rest, "\n")
}
