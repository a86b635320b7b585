package mailbox

import (
	"io"
	"time"

	"github.com/emersion/go-smtp"
)

// session is one SMTP connection. The library calls it from one goroutine.
type session struct {
	mailbox *Mailbox
	from    string
	to      []string
}

func (s *session) Reset() { s.from, s.to = "", nil }

func (s *session) Logout() error { return nil }

func (s *session) Mail(from string, _ *smtp.MailOptions) error {
	s.from = from
	return nil
}

func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.to = append(s.to, to)
	return nil
}

// Data accepts the mail. If the mail is larger than allowed, the reader returns
// the library's error for the sender.
func (s *session) Data(in io.Reader) error {
	raw, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	subject, text := decode(raw)
	m := s.mailbox.store.add(Message{
		From: s.from, To: s.to, Subject: subject, Text: text, Received: time.Now().UTC(),
	})
	s.mailbox.log.Info("mail accepted", "id", m.ID, "from", m.From, "to", m.To, "bytes", len(raw))
	if s.mailbox.received != nil {
		s.mailbox.received(m)
	}
	return nil
}
