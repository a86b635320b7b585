package mail_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/msrchat/msrchat/gate/internal/mail"
	"github.com/msrchat/msrchat/gate/internal/mailtest"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/testenv"
)

var config = mail.QueueConfig{
	Size:       4,
	Workers:    2,
	FirstRetry: time.Millisecond,
	LastRetry:  20 * time.Millisecond,
	Flush:      10 * time.Second,
}

// running is a queue that runs until end is called or the test ends.
type running struct {
	*mail.Queue
	reg *prometheus.Registry
	end func()
}

func run(t *testing.T, cfg mail.QueueConfig, transport mail.Transport, log *slog.Logger) running {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	q := mail.NewQueue(cfg, transport, log, reg)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- q.Run(ctx) }()
	end := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(end)
	return running{q, reg, end}
}

func (r running) result(t *testing.T, name string) float64 {
	t.Helper()
	families, err := r.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "msrchat_gate_mails_total" && m.GetLabel()[0].GetValue() == name {
				return m.GetCounter().GetValue()
			}
		}
	}
	t.Fatalf("no metric for %s", name)
	return 0
}

func smtpTransport(t *testing.T, addr string) *mail.SMTP {
	t.Helper()
	s, err := mail.NewSMTP(
		mail.SMTPConfig{Addr: addr, From: "msrChat <noreply@example.org>", TLS: "none", Timeout: 2 * time.Second},
	)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var quiet = slog.New(slog.DiscardHandler)

func message(to string) mail.Message {
	return mail.Message{
		To:      to,
		Subject: "Ein Gruß 你好",
		Text:    "Your code: 123456\n\n你好 🎉 " + strings.Repeat("long ", 40) + "\n",
		Expires: time.Now().Add(time.Minute),
	}
}

func TestAMailArrivesAsWritten(t *testing.T) {
	server := mailtest.Start(t)
	q := run(t, config, smtpTransport(t, server.Addr), quiet)
	m := message("ann@example.org")
	if err := q.Enqueue(m); err != nil {
		t.Fatal(err)
	}
	got := server.Wait(t, m.To, 1)
	if got.From != "noreply@example.org" || got.Subject != m.Subject || got.Text != m.Text {
		t.Errorf("got %+v", got)
	}
	if got.Header.Get("Auto-Submitted") != "auto-generated" || got.Header.Get("Message-Id") == "" ||
		got.Header.Get("Date") == "" {
		t.Errorf("headers %v", got.Header)
	}
	q.end()
	if n := q.result(t, "sent"); n != 1 {
		t.Errorf("%v sent, want 1", n)
	}
}

// Mail servers know a domain as DNS has it.
func TestAMailToADomainWithLetters(t *testing.T) {
	server := mailtest.Start(t)
	if err := smtpTransport(t, server.Addr).Send(t.Context(), message("ann@bücher.example")); err != nil {
		t.Fatal(err)
	}
	if got := server.Wait(t, "ann@xn--bcher-kva.example", 1); got.Header.Get("To") != "<ann@xn--bcher-kva.example>" {
		t.Errorf("to %q", got.Header.Get("To"))
	}
}

func TestRetriesUntilAccepted(t *testing.T) {
	server := mailtest.Start(t)
	server.Fail(451, 421, 450)
	var log bytes.Buffer
	q := run(t, config, smtpTransport(t, server.Addr), slog.New(slog.NewTextHandler(&log, nil)))
	if err := q.Enqueue(message("ann@example.org")); err != nil {
		t.Fatal(err)
	}
	server.Wait(t, "ann@example.org", 1)
	q.end()
	if server.Tried() != 4 || len(server.To("ann@example.org")) != 1 {
		t.Errorf("%d tries, %d mails; want 4 and 1", server.Tried(), len(server.To("ann@example.org")))
	}
	if strings.Contains(log.String(), "ann@") || strings.Contains(log.String(), "123456") ||
		!strings.Contains(log.String(), "domain=example.org") {
		t.Errorf("the log has an address or a code, or says nothing:\n%s", log.String())
	}
}

func TestARefusedMailIsNotRepeated(t *testing.T) {
	server := mailtest.Start(t)
	server.Fail(550)
	q := run(t, config, smtpTransport(t, server.Addr), quiet)
	if err := q.Enqueue(message("ann@example.org")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the queue is empty", func() bool { return q.Len() == 0 })
	if server.Tried() != 1 || q.result(t, "refused") != 1 {
		t.Errorf("%d tries, %v refused; want 1 and 1", server.Tried(), q.result(t, "refused"))
	}
}

func TestTheServerComesBack(t *testing.T) {
	addr := fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t))
	q := run(t, config, smtpTransport(t, addr), quiet)
	if err := q.Enqueue(message("ann@example.org")); err != nil {
		t.Fatal(err)
	}
	mailtest.StartAt(t, addr).Wait(t, "ann@example.org", 1)
}

// blocked is a transport that the test controls, one mail at a time.
type blocked struct {
	started chan string
	answer  chan error
}

func (b *blocked) Send(ctx context.Context, m mail.Message) error {
	b.started <- m.To
	select {
	case err := <-b.answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func TestAFullQueueSaysSo(t *testing.T) {
	b := &blocked{started: make(chan string, 100), answer: make(chan error)}
	cfg := config
	cfg.FirstRetry, cfg.LastRetry = time.Hour, time.Hour
	q := run(t, cfg, b, quiet)
	for i := range cfg.Size {
		if err := q.Enqueue(message(fmt.Sprintf("p%d@example.org", i))); err != nil {
			t.Fatalf("mail %d: %v", i, err)
		}
	}
	// A mail that waits for its next attempt still counts.
	<-b.started
	b.answer <- errors.New("not now")
	err := q.Enqueue(message("late@example.org"))
	if e := errs.From(err); e == nil || e.Code != errs.CodeUnavailable || e.RetryAfter <= 0 {
		t.Errorf("a full queue: %v, want unavailable with a retry time", err)
	}
	// At the end all are tried again, the one that waits included.
	go func() {
		for range cfg.Size {
			b.answer <- nil
		}
	}()
	q.end()
	if q.result(t, "sent") != float64(cfg.Size) || q.result(t, "full") != 1 || q.Len() != 0 {
		t.Errorf("%v sent, %v full, %d left", q.result(t, "sent"), q.result(t, "full"), q.Len())
	}
	if err := q.Enqueue(message("after@example.org")); errs.CodeOf(err) != errs.CodeUnavailable {
		t.Errorf("after the end: %v, want unavailable", err)
	}
}

func TestTheEndIsBounded(t *testing.T) {
	b := &blocked{started: make(chan string, 100), answer: make(chan error)}
	cfg := config
	cfg.Flush = 50 * time.Millisecond
	q := run(t, cfg, b, quiet)
	for range 3 {
		if err := q.Enqueue(message("ann@example.org")); err != nil {
			t.Fatal(err)
		}
	}
	started := time.Now()
	q.end()
	if took := time.Since(started); took < cfg.Flush || took > 5*time.Second {
		t.Errorf("the end took %v", took)
	}
	if n := q.result(t, "dropped"); n != 3 {
		t.Errorf("%v dropped, want 3", n)
	}
}

func TestAnExpiredMailIsDropped(t *testing.T) {
	b := &blocked{started: make(chan string, 100), answer: make(chan error)}
	q := run(t, config, b, quiet)
	m := message("ann@example.org")
	m.Expires = time.Now().Add(-time.Second)
	if err := q.Enqueue(m); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the queue is empty", func() bool { return q.Len() == 0 })
	if len(b.started) != 0 || q.result(t, "expired") != 1 {
		t.Errorf("%d sent, %v expired; want 0 and 1", len(b.started), q.result(t, "expired"))
	}
}

// An address cannot smuggle in a header, even if earlier checks let it pass.
func TestAnAddressCannotAddHeaders(t *testing.T) {
	server := mailtest.Start(t)
	s := smtpTransport(t, server.Addr)
	for _, to := range []string{
		"a@example.org\r\nBcc: b@example.org", "a@example.org, b@example.org", "not an address", "",
	} {
		m := message(to)
		if err := s.Send(t.Context(), m); err == nil || !mail.Permanent(err) {
			t.Errorf("%q: %v, want a permanent error", to, err)
		}
	}
	if server.Tried() != 0 {
		t.Errorf("%d mails were tried", server.Tried())
	}
}

func TestConfigurationsThatCannotWork(t *testing.T) {
	good := mail.SMTPConfig{Addr: "127.0.0.1:25", From: "a@example.org", TLS: "tls", Timeout: time.Second}
	if _, err := mail.NewSMTP(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*mail.SMTPConfig){
		"no port":     func(c *mail.SMTPConfig) { c.Addr = "127.0.0.1" },
		"bad port":    func(c *mail.SMTPConfig) { c.Addr = "127.0.0.1:smtp" },
		"no sender":   func(c *mail.SMTPConfig) { c.From = "nobody" },
		"unknown TLS": func(c *mail.SMTPConfig) { c.TLS = "maybe" },
		"no timeout":  func(c *mail.SMTPConfig) { c.Timeout = 0 },
	} {
		bad := good
		change(&bad)
		if _, err := mail.NewSMTP(bad); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// A configured STARTTLS is never skipped.
func TestNoMailWithoutTheConfiguredTLS(t *testing.T) {
	server := mailtest.Start(t) // offers no STARTTLS
	for _, mode := range []string{"starttls", "tls"} {
		s, err := mail.NewSMTP(
			mail.SMTPConfig{Addr: server.Addr, From: "a@example.org", TLS: mode, Timeout: time.Second},
		)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Send(t.Context(), message("ann@example.org")); err == nil || mail.Permanent(err) {
			t.Errorf("%s: %v, want an error that is not permanent", mode, err)
		}
	}
	if server.Tried() != 0 {
		t.Error("a mail went out in the clear")
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); <-tick.C {
		if ok() {
			return
		}
	}
	t.Fatalf("never seen: %s", what)
}
