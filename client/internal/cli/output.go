package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/client/internal/plain"
	"github.com/msrchat/msrchat/client/store"
)

// Times: people read their own, programs read UTC.
const (
	humanTime = "2006-01-02 15:04:05"
	jsonTime  = "2006-01-02T15:04:05.000Z"
)

func forHumans(t time.Time) string   { return t.Local().Format(humanTime) }
func forPrograms(t time.Time) string { return t.UTC().Format(jsonTime) }

// decimal is an id in JSON: a string, for readers whose numbers are floats.
func decimal(id uint64) string { return strconv.FormatUint(id, 10) }

// printer writes a command's answers.
type printer struct {
	w    io.Writer
	json bool
}

// print writes one answer: an object, or a line.
func (p printer) print(object any, format string, args ...any) error {
	if !p.json {
		_, err := fmt.Fprintf(p.w, format+"\n", args...)
		return err
	}
	raw, err := json.Marshal(object)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	_, err = p.w.Write(append(plain.JSON(raw), '\n'))
	return err
}

// messageJSON is a message to programs. Fields are only ever added.
type messageJSON struct {
	Conversation string `json:"conversation"`
	With         string `json:"with"`
	Seq          uint64 `json:"seq"`
	ID           string `json:"id"`
	From         string `json:"from"`
	Mine         bool   `json:"mine"`
	At           string `json:"at"`
	Kind         string `json:"kind"`
	Text         string `json:"text"`
}

// message prints one message of the conversation with peer.
func (p printer) message(me client.User, peer client.Peer, m client.Message) error {
	from := peer.Name
	if m.Sender == me.ID {
		from = me.Name
	}
	kind, text := "text", m.Text
	if m.Kind != store.KindText {
		kind = "kind" + strconv.Itoa(int(m.Kind))
	}
	shown := plain.Line(text)
	if kind != "text" {
		shown = "(this message needs a newer msrchat)"
	}
	return p.print(messageJSON{
		Conversation: decimal(m.Conversation), With: peer.Name, Seq: m.Seq, ID: m.ID.String(), From: from,
		Mine: m.Sender == me.ID, At: forPrograms(m.At), Kind: kind, Text: text,
	}, "%s  %s #%d  %s: %s", forHumans(m.At), plain.Line(peer.Name), m.Seq, plain.Line(from), shown)
}
