// Package mailtest is an SMTP server for tests, on a free loopback port, that
// keeps all mail and fails on demand.
package mailtest

import (
	"errors"
	"io"
	"mime"
	"mime/quotedprintable"
	"net"
	netmail "net/mail"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
)

// Mail is one mail that the server accepted.
type Mail struct {
	From, To string
	Subject  string
	Text     string
	Header   netmail.Header
}

// Server is the mail server.
type Server struct {
	Addr string

	smtp *smtp.Server

	mu      sync.Mutex // owns the fields below
	taken   []Mail
	answers []error // the next deliveries' answers, nil for success
	tried   int
}

// Start starts a server that ends with the test.
func Start(tb testing.TB) *Server {
	tb.Helper()
	return StartAt(tb, "127.0.0.1:0")
}

// StartAt starts a server on an address.
func StartAt(tb testing.TB, addr string) *Server {
	tb.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		tb.Fatal(err)
	}
	s := &Server{Addr: l.Addr().String()}
	s.smtp = smtp.NewServer(s)
	s.smtp.Domain, s.smtp.EnableSMTPUTF8 = "mailtest", true
	s.smtp.ReadTimeout, s.smtp.WriteTimeout = 10*time.Second, 10*time.Second
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.smtp.Serve(l); err != nil && !errors.Is(err, smtp.ErrServerClosed) &&
			!errors.Is(err, net.ErrClosed) {
			tb.Errorf("mail server: %v", err)
		}
	}()
	tb.Cleanup(func() {
		_ = s.smtp.Close()
		_ = l.Close() // Serve may not have begun when the test ended
		<-done
	})
	return s
}

// Fail sets the SMTP codes that the next deliveries are answered with.
func (s *Server) Fail(codes ...int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, code := range codes {
		s.answers = append(s.answers, &smtp.SMTPError{
			Code: code, EnhancedCode: smtp.EnhancedCode{code / 100, 0, 0}, Message: "on demand",
		})
	}
}

// Tried is how many deliveries were tried.
func (s *Server) Tried() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tried
}

// To returns the mails to an address, the oldest first.
func (s *Server) To(address string) []Mail {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []Mail
	for _, m := range s.taken {
		if m.To == address {
			found = append(found, m)
		}
	}
	return found
}

// Wait waits until an address has n mails and returns the last of them.
func (s *Server) Wait(tb testing.TB, address string, n int) Mail {
	tb.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); <-tick.C {
		if found := s.To(address); len(found) >= n {
			return found[n-1]
		}
	}
	tb.Fatalf("mail %d to %s did not arrive", n, address)
	return Mail{}
}

// NewSession implements smtp.Backend.
func (s *Server) NewSession(*smtp.Conn) (smtp.Session, error) { return &session{server: s}, nil }

// session is one client's; it belongs to its connection's goroutine.
type session struct {
	server   *Server
	from, to string
}

func (c *session) Mail(from string, _ *smtp.MailOptions) error { c.from = from; return nil }
func (c *session) Rcpt(to string, _ *smtp.RcptOptions) error   { c.to = to; return nil }
func (c *session) Reset()                                      { c.from, c.to = "", "" }
func (c *session) Logout() error                               { return nil }

func (c *session) Data(r io.Reader) error {
	parsed, err := netmail.ReadMessage(r)
	if err != nil {
		return err
	}
	body := parsed.Body
	if parsed.Header.Get("Content-Transfer-Encoding") == "quoted-printable" {
		body = quotedprintable.NewReader(body)
	}
	text, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	subject, err := new(mime.WordDecoder).DecodeHeader(parsed.Header.Get("Subject"))
	if err != nil {
		return err
	}
	s := c.server
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tried++
	if len(s.answers) > 0 {
		answer := s.answers[0]
		s.answers = s.answers[1:]
		return answer
	}
	s.taken = append(s.taken, Mail{
		From: c.from, To: c.to, Subject: subject, Header: parsed.Header,
		Text: strings.ReplaceAll(string(text), "\r\n", "\n"),
	})
	return nil
}
