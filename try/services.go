package try

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/msrchat/msrchat/chat"
	"github.com/msrchat/msrchat/gate"
	statusv1 "github.com/msrchat/msrchat/proto/msrchat/status/v1"
	"github.com/msrchat/msrchat/shared/process"
	"github.com/msrchat/msrchat/status"
	"github.com/msrchat/msrchat/tools/mailbox"
)

// How many of each: as in the local fleet, so that what two people write goes from one
// chat server to the other.
const (
	replicas    = 2
	chatServers = 2
)

// drain is for people to be told to come back; there is nobody else to go to.
const drain = time.Second

// services are the servers of this process.
type services struct {
	mail   *mailbox.Mailbox
	status []*status.Server
	chats  []*chat.Server
	gate   *gate.Server
}

func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// services binds all ports and dials nothing.
func (s *system) services() (all services, err error) {
	table := s.cfg.Ports
	all.mail, err = mailbox.New(mailbox.Config{
		SMTPBind: local(table.MailSMTP()), HTTPBind: local(table.MailHTTP()), Received: s.showMail, Log: s.logger,
	})
	if err != nil {
		return all, err
	}
	release := process.Version()
	for i := range replicas {
		cfg := status.Defaults()
		cfg.Instance, cfg.Release = fmt.Sprintf("status-%d", i+1), release
		cfg.Catalog, cfg.Register = s.catalog, true
		server, err := status.New(cfg, s.logger.With("server", cfg.Instance))
		if err != nil {
			return all, err
		}
		all.status = append(all.status, server)
	}
	for i := range chatServers {
		cfg := chat.Defaults()
		cfg.Instance, cfg.Release = fmt.Sprintf("chat-%d", i+1), release
		cfg.Catalog, cfg.Register = s.catalog, true
		cfg.Database, cfg.Redis, cfg.Drain = s.database(), s.cache(), drain
		server, err := chat.New(cfg, s.logger.With("server", cfg.Instance))
		if err != nil {
			return all, err
		}
		all.chats = append(all.chats, server)
	}
	cfg := gate.Defaults()
	cfg.Instance, cfg.Release, cfg.Bind = "gate-1", release, local(table.Gate())
	cfg.Catalog, cfg.Register = s.catalog, true
	cfg.MySQL, cfg.Redis, cfg.Codes.Secret = s.database(), s.cache(), s.secrets.code
	cfg.SMTP.Addr = local(table.MailSMTP())
	all.gate, err = gate.New(cfg, s.logger.With("server", cfg.Instance))
	return all, err
}

// start brings the database up and says how to chat once people are let in.
func (s *system) start(ctx context.Context, mariadb <-chan error, all services) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	s.printf("starting MariaDB, Redis and the servers …\n")
	stop := s.tick(ctx)
	defer stop()
	select {
	case err := <-mariadb:
		if err != nil {
			return nil //nolint:nilerr // that part returns it
		}
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := s.migrate(ctx); err != nil {
		return err
	}
	for i, server := range all.status {
		what := fmt.Sprintf("status-%d, which waits for the chat servers", i+1)
		takes := func(ctx context.Context) error { return assigns(ctx, server.GRPCAddr()) }
		if err := until(ctx, what, takes); err != nil {
			return err
		}
	}
	url := "http://" + all.gate.HTTPAddr()
	if err := until(ctx, "the gate", func(ctx context.Context) error { return ready(ctx, url) }); err != nil {
		return err
	}
	stop()
	s.printf(welcome, time.Since(s.began).Seconds(), "http://"+all.status[0].HTTPAddr()+"/", s.cfg.State.Path())
	return nil
}

// welcome has the seconds of the start, the live page, and where the data is.
const welcome = `msrChat runs, after %.1f s. Two people chat, each in a terminal of their own:

  ./justw chat --profile ann      # answer r to register; any e-mail address will do
  ./justw chat --profile ben      # then Ctrl+K and a name begin a conversation

The mails with their codes appear here. Servers, live: %s
Ctrl-C ends it all. What is written is kept, in %s.

`

// tick prints a line while a start takes long.
func (s *system) tick(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		ticker := time.NewTicker(2 * time.Second)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				s.printf("  … %.0f s\n", time.Since(s.began).Seconds())
			}
		}
	}()
	return cancel
}

// until polls until something works.
func until(ctx context.Context, what string, works func(context.Context) error) error {
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	var last error
	for {
		err := works(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil {
			last = err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("waited for %s: %w", what, errors.Join(ctx.Err(), last))
		}
	}
}

// assigns returns nil when a status server may send people to every chat server.
func assigns(ctx context.Context, addr string) error {
	cc, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer cc.Close()
	fleet, err := statusv1.NewStatusServiceClient(cc).Fleet(ctx, &statusv1.FleetRequest{})
	if err != nil {
		return err
	}
	n := 0
	for _, server := range fleet.GetServers() {
		if server.GetEligible() && server.GetLoad() != nil {
			n++
		}
	}
	if n < chatServers {
		return fmt.Errorf("%d of %d chat servers take people", n, chatServers)
	}
	return nil
}

func ready(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/readyz", http.NoBody)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("it answers %s", response.Status)
	}
	return nil
}

var code = regexp.MustCompile(`\b\d{6}\b`)

// showMail prints what a mail is about: the code, if it brings one.
func (s *system) showMail(m mailbox.Message) {
	about := m.Subject
	if digits := code.FindString(m.Text); digits != "" {
		about += ": " + digits
	}
	s.printf("%s  mail to %s: %s\n", time.Now().Format("15:04:05"), strings.Join(m.To, ", "), about)
}
