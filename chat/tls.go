package chat

import (
	"context"
	"crypto/tls"
	"fmt"
	"time"

	"github.com/msrchat/msrchat/shared/certificate"
	"github.com/msrchat/msrchat/shared/retry"
)

// loadCertificate prepares TLS for clients, if it is configured.
func (s *Server) loadCertificate() (err error) {
	if s.cfg.Certificate.Empty() {
		return nil
	}
	if s.certificate, err = certificate.Load(s.cfg.Certificate, s.log); err != nil {
		return err
	}
	s.tls = &tls.Config{
		GetCertificate: s.certificate.Get,
		MinVersion:     tls.VersionTLS13,
		// The write queue collects what is written, so that long records are rare and
		// worth it.
		DynamicRecordSizingDisabled: true,
	}
	return nil
}

const (
	// ticketsEvery is how often the keys of tickets are looked at, ticketDay how long each
	// of them makes tickets.
	ticketsEvery = time.Hour
	ticketDay    = 24 * time.Hour
)

// renewTickets sets the keys of session tickets until ctx ends. All chat servers derive
// the same ones from the secret that they share and the date, so that a client whose
// server died resumes its TLS session at another. Tickets of the day before are taken,
// and those of the day after, from a server whose clock is ahead.
func (s *Server) renewTickets(ctx context.Context) error {
	wait := ticketsEvery
	for {
		if err := s.setTickets(ctx, time.Now()); err != nil {
			s.log.Warn("keys of session tickets not renewed", "err", err)
			wait = time.Second
		}
		if !retry.Sleep(ctx, wait) {
			return nil
		}
		wait = ticketsEvery
	}
}

func (s *Server) setTickets(ctx context.Context, now time.Time) error {
	var keys [][32]byte // the first one makes tickets
	for _, day := range []time.Time{now, now.Add(-ticketDay), now.Add(ticketDay)} {
		key, err := s.sessions.Derive(ctx, "tls tickets "+day.UTC().Format(time.DateOnly))
		if err != nil {
			return fmt.Errorf("derive: %w", err)
		}
		keys = append(keys, key)
	}
	s.tls.SetSessionTicketKeys(keys)
	return nil
}
