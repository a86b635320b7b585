// Package kind is the table of what events can be: for each kind of content how
// it is checked, and whether it counts as an unread message. A new kind is a
// field of Content in chat.proto and a row here.
package kind

import (
	"github.com/msrchat/msrchat/shared/content"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/text"
)

// Kind is one row.
type Kind struct {
	// Number is that of the field in Content.
	Number uint8
	Name   string
	// Check says what is wrong with a body, as an *errs.Error, nil for nothing.
	Check func(body []byte) error
	// Uncounted events are no unread messages.
	Uncounted bool
}

// Text is what people write.
const Text = content.Text

var table = []Kind{
	{Number: Text, Name: "text", Check: func(body []byte) error { return text.Message(string(body)) }},
}

var errUnknown = errs.New(errs.CodeInvalid, "this server does not know that kind of content").In("kind")

// Of returns the row of a number; 0 is a text, as clients of revision 0 send it.
func Of(number uint32) (Kind, error) {
	if number == 0 {
		number = Text
	}
	for _, k := range table {
		if uint32(k.Number) == number {
			return k, nil
		}
	}
	return Kind{}, errUnknown
}
