package mail

import (
	"context"
	"errors"
	"fmt"
	"net"
	netmail "net/mail"
	"strconv"
	"time"

	gomail "github.com/wneessen/go-mail"

	"github.com/msrchat/msrchat/shared/text"
)

// SMTPConfig says which mail server sends our mail.
type SMTPConfig struct {
	// Addr is host:port; the host's name is what its certificate must be for.
	Addr string
	// From is the sender, an address with or without a name.
	From string
	// TLS is none, starttls (required, never skipped) or tls.
	TLS string
	// User and Password log in, if User is not empty. Without TLS only methods
	// that do not reveal the password are used.
	User, Password string
	// Timeout bounds connecting, and separately sending one mail.
	Timeout time.Duration
}

// Validate says what is wrong with a configuration.
func (c SMTPConfig) Validate() error {
	_, port, err := net.SplitHostPort(c.Addr)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return fmt.Errorf("the SMTP address %q is not host:port", c.Addr)
	}
	if _, err := netmail.ParseAddress(c.From); err != nil {
		return fmt.Errorf("the SMTP sender %q is not an address", c.From)
	}
	switch c.TLS {
	case "none", "starttls", "tls":
	default:
		return fmt.Errorf("the SMTP TLS mode %q is not none, starttls or tls", c.TLS)
	}
	if c.Timeout <= 0 {
		return errors.New("the SMTP timeout must be positive")
	}
	return nil
}

// SMTP is the Transport to a mail server. It connects for every mail: there are
// few, and the server would close an idle connection.
type SMTP struct {
	client *gomail.Client
	from   string
}

var _ Transport = (*SMTP)(nil)

// NewSMTP returns a transport; nothing is dialled yet.
func NewSMTP(cfg SMTPConfig) (*SMTP, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	host, portText, err := net.SplitHostPort(cfg.Addr)
	if err != nil {
		return nil, err
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return nil, err
	}
	opts := []gomail.Option{gomail.WithPort(port), gomail.WithTimeout(cfg.Timeout)}
	switch cfg.TLS {
	case "none":
		opts = append(opts, gomail.WithTLSPolicy(gomail.NoTLS))
	case "starttls":
		opts = append(opts, gomail.WithTLSPolicy(gomail.TLSMandatory))
	case "tls":
		opts = append(opts, gomail.WithSSL())
	}
	if cfg.User != "" {
		opts = append(opts, gomail.WithSMTPAuth(gomail.SMTPAuthAutoDiscover),
			gomail.WithUsername(cfg.User), gomail.WithPassword(cfg.Password))
	}
	client, err := gomail.NewClient(host, opts...)
	if err != nil {
		return nil, fmt.Errorf("smtp client: %w", err)
	}
	return &SMTP{client: client, from: cfg.From}, nil
}

// Send implements Transport.
func (s *SMTP) Send(ctx context.Context, m Message) error {
	msg := gomail.NewMsg()
	if err := msg.From(s.from); err != nil {
		return permanent{fmt.Errorf("mail sender: %w", err)}
	}
	if err := msg.To(text.MailTo(m.To)); err != nil {
		return permanent{fmt.Errorf("mail recipient: %w", err)}
	}
	msg.Subject(m.Subject)
	msg.SetMessageID()
	msg.SetDate()
	msg.SetGenHeader("Auto-Submitted", "auto-generated") // no vacation replies
	msg.SetBodyString(gomail.TypeTextPlain, m.Text)
	session, err := s.client.DialToSMTPClientWithContext(ctx)
	if err != nil {
		return fmt.Errorf("smtp connect: %w", err)
	}
	// The outcome is decided before QUIT: an error there must not lead to a
	// second mail.
	defer func() { _ = s.client.CloseWithSMTPClient(session) }()
	if err := s.client.SendWithSMTPClient(session, msg); err != nil {
		var send *gomail.SendError
		if errors.As(err, &send) && (send.ErrorCode() >= 500 || send.Reason == gomail.ErrNoUnencoded) {
			return permanent{err}
		}
		return fmt.Errorf("smtp send: %w", err)
	}
	return nil
}
