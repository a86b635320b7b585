// Package content takes apart and puts together what an event says. A Content of
// chat.proto travels and is stored as two values: the number of the field that is
// set, its kind, and the field's bytes, its body.
package content

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
)

// Text is the kind of a text, whose body is the text itself.
const Text = 1

// MaxKind is the greatest kind: the database keeps it in one byte.
const MaxKind = 255

var errNone = errors.New("the content is of no kind")

// Split returns the kind and the body of a content.
func Split(c *chatv1.Content) (kind uint32, body []byte, err error) {
	encoded, err := proto.Marshal(c)
	if err != nil {
		return 0, nil, fmt.Errorf("encode content: %w", err)
	}
	number, wire, n := protowire.ConsumeTag(encoded)
	if n < 0 || wire != protowire.BytesType || number > MaxKind {
		return 0, nil, errNone
	}
	body, n = protowire.ConsumeBytes(encoded[n:])
	if n < 0 {
		return 0, nil, errNone
	}
	return uint32(number), body, nil
}

// Join returns the content of a kind and a body. A kind that this program does
// not know gives a content without one; the error is for a body that does not fit
// its kind.
func Join(kind uint32, body []byte) (*chatv1.Content, error) {
	if kind == 0 || kind > MaxKind {
		return nil, errNone
	}
	encoded := protowire.AppendTag(nil, protowire.Number(kind), protowire.BytesType)
	c := &chatv1.Content{}
	if err := proto.Unmarshal(protowire.AppendBytes(encoded, body), c); err != nil {
		return nil, fmt.Errorf("decode content of kind %d: %w", kind, err)
	}
	return c, nil
}
