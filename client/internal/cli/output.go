package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/client/internal/plain"
	"github.com/msrchat/msrchat/shared/content"
)

// Times: local for people, UTC for programs.
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

func asJSON(me client.User, peer client.Peer, m client.Message) messageJSON {
	out := messageJSON{
		Conversation: decimal(m.Conversation), With: peer.Name, Seq: m.Seq, ID: m.ID.String(), From: peer.Name,
		Mine: m.Sender == me.ID, At: forPrograms(m.At), Kind: "text", Text: m.Text(),
	}
	if out.Mine {
		out.From = me.Name
	}
	if m.Kind != content.Text {
		out.Kind = "kind" + strconv.FormatUint(uint64(m.Kind), 10)
	}
	return out
}

// message prints one message of the conversation with peer.
func (p printer) message(me client.User, peer client.Peer, m client.Message) error {
	out := asJSON(me, peer, m)
	shown := plain.Line(out.Text)
	if m.Kind != content.Text {
		shown = "(this message needs a newer msrchat)"
	}
	return p.print(out, "%s  %s #%d  %s: %s", forHumans(m.At), plain.Line(peer.Name), m.Seq, plain.Line(out.From),
		shown)
}
