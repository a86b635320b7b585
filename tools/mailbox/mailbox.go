// Package mailbox is a catch-all mail server for local use and for tests: it
// accepts all mail over SMTP, delivers none, and shows it over HTTP.
//
//	GET /messages?to=ADDRESS[&limit=N]   JSON, newest first; without to: all
//	GET /healthz                         200 while it runs
//
// It keeps a bounded number of mails of bounded size, only in memory.
package mailbox

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/emersion/go-smtp"
	"golang.org/x/net/netutil"
)

const (
	// keep is how many mails are kept; beyond that the oldest is dropped.
	keep = 1000
	// maxBytes is the size of the largest mail. Ours have a few hundred bytes.
	maxBytes = 64 << 10
	// maxRecipients of one mail.
	maxRecipients = 50
	// maxConns is how many SMTP connections are served at once; others wait in
	// the kernel's queue.
	maxConns = 100
	// idle is how long either side may be silent on a connection.
	idle = 30 * time.Second
	// stopGrace is for deliveries in progress when the mailbox ends.
	stopGrace = 2 * time.Second
)

// Config says where to listen. Port 0 picks a free one.
type Config struct {
	SMTPBind string // host:port that accepts mail
	HTTPBind string // host:port that shows it
	// Received is called with each mail, from the goroutine of its connection; nil if
	// nobody wants to know.
	Received func(Message)
	Log      *slog.Logger
}

// Mailbox accepts and shows mail. Its methods may be called from any goroutine.
type Mailbox struct {
	log      *slog.Logger
	received func(Message)
	store    *store
	smtp     net.Listener
	http     net.Listener
}

// New opens both listeners, so that the addresses are known before Run.
func New(config Config) (*Mailbox, error) {
	log := config.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	smtpListener, err := net.Listen("tcp", config.SMTPBind)
	if err != nil {
		return nil, fmt.Errorf("listen for smtp: %w", err)
	}
	httpListener, err := net.Listen("tcp", config.HTTPBind)
	if err != nil {
		_ = smtpListener.Close()
		return nil, fmt.Errorf("listen for http: %w", err)
	}
	return &Mailbox{
		log: log, received: config.Received, store: newStore(keep), smtp: smtpListener, http: httpListener,
	}, nil
}

// SMTPAddr is the bound host:port that accepts mail.
func (m *Mailbox) SMTPAddr() string { return m.smtp.Addr().String() }

// HTTPAddr is the bound host:port that shows it.
func (m *Mailbox) HTTPAddr() string { return m.http.Addr().String() }

// Newest returns the newest mail to the address; false if there is none.
func (m *Mailbox) Newest(address string) (Message, bool) {
	if found := m.store.find(address, 1); len(found) > 0 {
		return found[0], true
	}
	return Message{}, false
}

// Run serves until ctx ends, then closes both listeners and returns nil. Call it
// once.
func (m *Mailbox) Run(ctx context.Context) error {
	smtpServer := m.smtpServer()
	httpServer := &http.Server{
		Handler:           m.handler(),
		ReadHeaderTimeout: idle,
		ReadTimeout:       idle,
		WriteTimeout:      idle,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(m.log.Handler(), slog.LevelDebug),
	}
	failed := make(chan error, 2) // both may fail, one is read
	go func() {
		failed <- fmt.Errorf("serve smtp: %w", smtpServer.Serve(netutil.LimitListener(m.smtp, maxConns)))
	}()
	go func() { failed <- fmt.Errorf("serve http: %w", httpServer.Serve(m.http)) }()

	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
	defer cancel()
	if smtpServer.Shutdown(ending) != nil {
		_ = smtpServer.Close() // a client kept its connection open
	}
	if httpServer.Shutdown(ending) != nil {
		_ = httpServer.Close()
	}
	// A server that did not begin to serve has not closed its listener.
	_, _ = m.smtp.Close(), m.http.Close()
	return err
}

func (m *Mailbox) smtpServer() *smtp.Server {
	server := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) {
		return &session{mailbox: m}, nil
	}))
	server.Domain = "localhost"
	server.MaxMessageBytes = maxBytes
	server.MaxRecipients = maxRecipients
	server.MaxLineLength = 2000 // RFC 5322 allows 998 and is often exceeded
	server.ReadTimeout = idle
	server.WriteTimeout = idle
	server.EnableSMTPUTF8 = true
	server.ErrorLog = smtpLog{m.log}
	return server
}

// smtpLog logs the library's messages, most of them about clients that hung up.
type smtpLog struct{ log *slog.Logger }

func (l smtpLog) Printf(format string, args ...any) {
	l.log.Debug("smtp", "text", fmt.Sprintf(format, args...))
}

func (l smtpLog) Println(args ...any) { l.log.Debug("smtp", "text", fmt.Sprint(args...)) }
