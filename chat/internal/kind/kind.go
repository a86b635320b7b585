// Package kind is the table of the kinds of content: how each is checked, and
// whether it counts as an unread message. A new kind is a field of Content in
// chat.proto and a row here.
package kind

import (
	"math"
	"slices"

	"github.com/msrchat/msrchat/shared/content"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/text"
)

// Kind is one row.
type Kind struct {
	// Number and Name are those of the field in Content.
	Number uint8
	Name   string
	// Check says what is wrong with a body, as an *errs.Error, nil for nothing.
	Check func(body []byte) error
	// Uncounted events are not counted as unread messages.
	Uncounted bool
}

// Text is a message that a person wrote.
const Text = content.Text

var table = []Kind{
	{Number: Text, Name: "text", Check: checkText},
}

// checkText names the field that a client author knows.
func checkText(body []byte) error {
	err := text.Message(string(body))
	if err == nil {
		return nil
	}
	return errs.From(err).In("body")
}

var errUnknown = errs.New(errs.CodeInvalid, "this server does not know that kind of content").In("kind")

// Of returns the row of a number. Clients of revision 0 send 0 for a text.
func Of(number uint32) (Kind, error) {
	if number == 0 {
		number = Text
	}
	if k, ok := find(number); ok {
		return k, nil
	}
	return Kind{}, errUnknown
}

func find(number uint32) (Kind, bool) {
	i := slices.IndexFunc(table, func(k Kind) bool { return uint32(k.Number) == number })
	if i < 0 {
		return Kind{}, false
	}
	return table[i], true
}

var errTooLong = errs.New(errs.CodeTooLarge, "the content is longer than %d bytes", text.MaxMessageBytes).In("body")

// CheckRelayed says what is wrong with content that another server took from a client,
// nil for nothing. That server may be of a later release and know more kinds. No server
// relays kind 0, which a reader would take for a text that nobody has checked.
func CheckRelayed(number uint32, body []byte) error {
	switch {
	case number == 0 || number > math.MaxUint8:
		return errUnknown
	case len(body) > text.MaxMessageBytes:
		return errTooLong
	}
	if k, ok := find(number); ok {
		return k.Check(body)
	}
	return nil
}
