package account

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/msrchat/msrchat/gate/internal/code"
	"github.com/msrchat/msrchat/gate/internal/limit"
	"github.com/msrchat/msrchat/gate/internal/mail"
	"github.com/msrchat/msrchat/gate/internal/password"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/session"
	"github.com/msrchat/msrchat/shared/text"
)

// Mailer queues a mail and does not block. CodeUnavailable: the queue is full.
type Mailer interface {
	Enqueue(m mail.Message) error
}

// Parts are what a Service needs.
type Parts struct {
	Store     *Store
	Codes     *code.Store
	Limits    *limit.Limiter
	Passwords *password.Hasher
	Mail      Mailer
	Sessions  *session.Store
	Rules     Rules
	// CodeLifetime is for the text of the mail.
	CodeLifetime time.Duration
	Log          *slog.Logger
}

// Service is what people can do with accounts. It has no state of its own and is
// safe for concurrent use.
type Service struct {
	store     *Store
	codes     *code.Store
	limits    *limit.Limiter
	passwords *password.Hasher
	mail      Mailer
	sessions  *session.Store
	rules     Rules
	lifetime  time.Duration
	log       *slog.Logger
}

// NewService returns a service over its parts.
func NewService(p Parts) *Service {
	return &Service{
		store: p.Store, codes: p.Codes, limits: p.Limits, passwords: p.Passwords, mail: p.Mail,
		sessions: p.Sessions, rules: p.Rules, lifetime: p.CodeLifetime, log: p.Log,
	}
}

// LoggedIn is a new session with its token.
type LoggedIn struct {
	Account Account
	Session session.Session
	Token   []byte
}

// SendCode mails a registration code to an address. client counts for the limits.
// An address that has an account gets a mail that says so instead; the answer and
// its cost are the same.
func (s *Service) SendCode(ctx context.Context, client netip.Addr, email string) error {
	address, key, err := text.Email(email)
	if err != nil {
		return err
	}
	refund, err := s.takeAll(ctx, s.codeClaims(client, key))
	if err != nil {
		return err
	}
	if err := s.sendCode(ctx, address, key); err != nil {
		refund() // no mail was sent
		return err
	}
	return nil
}

func (s *Service) sendCode(ctx context.Context, address, key string) error {
	owner, err := s.store.byEmail(ctx, key)
	switch {
	case err == nil:
		if err := s.codes.Decoy(ctx, code.Register, key); err != nil {
			return err
		}
		return s.mail.Enqueue(takenMail(owner.Email, owner.Name, s.lifetime))
	case errs.CodeOf(err) != errs.CodeNotFound:
		return err
	}
	digits, err := s.codes.Issue(ctx, code.Register, key)
	if err != nil {
		return err
	}
	return s.mail.Enqueue(codeMail(address, digits, s.lifetime))
}

// Registration is a request to register.
type Registration struct {
	Email, Name, Password, Code, Device string
}

// Register creates an account for the person who has the mailed code, and logs
// them in. The code is used up only when the account exists, so that a name that
// is taken does not cost it.
func (s *Service) Register(ctx context.Context, client netip.Addr, r Registration) (LoggedIn, error) {
	var name, email identity
	var err error
	if email.display, email.key, err = text.Email(r.Email); err != nil {
		return LoggedIn{}, err
	}
	if name.display, name.key, err = text.Name(r.Name); err != nil {
		return LoggedIn{}, err
	}
	if err := text.Password(r.Password); err != nil {
		return LoggedIn{}, err
	}
	if err := session.Device(r.Device); err != nil {
		return LoggedIn{}, err
	}
	digits, err := code.Parse(r.Code)
	if err != nil {
		return LoggedIn{}, err
	}
	network := limit.Network(client)
	who := password.Who{Key: network}
	if err := s.passwords.Room(who); err != nil {
		return LoggedIn{}, err
	}
	if _, err := s.takeAll(ctx, s.registrationClaims(network)); err != nil {
		return LoggedIn{}, err
	}
	ticket, err := s.codes.Check(ctx, code.Register, email.key, digits)
	if err != nil {
		return LoggedIn{}, err
	}
	if ticket.Used {
		// A person who has the code reads the mail, so this reveals nothing.
		return LoggedIn{}, errs.New(errs.CodeConflict, "this address has an account already; log in instead").
			In("email")
	}
	hash, err := s.passwords.Hash(ctx, who, r.Password)
	if err != nil {
		return LoggedIn{}, err
	}
	made, err := s.store.insert(ctx, name, email, hash)
	if err != nil {
		return LoggedIn{}, err
	}
	// The address's unique key already keeps the code from creating a second
	// account, so a failure of Redis does no harm here.
	if _, err := s.codes.Use(ctx, ticket); err != nil {
		s.log.WarnContext(ctx, "code not marked as used", "user", made.ID, "err", err)
	}
	s.log.InfoContext(ctx, "account registered", "user", made.ID)
	return s.logIn(ctx, made, r.Device, network)
}

// Credentials are a request to log in, by a name or an address.
type Credentials struct {
	Name, Email, Password, Device string
}

// errWrong is the answer to a wrong password and to an unknown user alike.
var errWrong = errs.New(errs.CodeUnauthenticated, "the name, the address or the password is wrong")

// LogIn starts a session. It takes as long for a user who does not exist.
func (s *Service) LogIn(ctx context.Context, client netip.Addr, c Credentials) (LoggedIn, error) {
	if err := session.Device(c.Device); err != nil {
		return LoggedIn{}, err
	}
	network := limit.Network(client)
	found, key, err := s.find(ctx, c)
	if err != nil {
		return LoggedIn{}, err
	}
	known, err := s.sessions.Known(ctx, found.ID, network) // also for nobody: it takes as long
	if err != nil {
		return LoggedIn{}, err
	}
	who := password.Who{Key: network}
	if known { // does not wait behind others of the same network
		who = password.Who{Key: key, Known: true}
	}
	if err := s.passwords.Room(who); err != nil {
		return LoggedIn{}, err
	}
	refund, err := s.takeAll(ctx, s.logInClaims(network, key, known))
	if err != nil {
		return LoggedIn{}, err
	}
	right, stale, err := s.passwords.Verify(ctx, who, found.passwordHash, c.Password)
	if err != nil {
		refund() // the password was not tried
		return LoggedIn{}, err
	}
	if !right {
		return LoggedIn{}, errWrong
	}
	refund() // only failures count
	if stale {
		s.rehash(ctx, who, found, c.Password)
	}
	return s.logIn(ctx, found, c.Device, network)
}

// find returns the account (an empty one if there is none) and its key for the
// limits.
func (s *Service) find(ctx context.Context, c Credentials) (found Account, key string, err error) {
	switch {
	case c.Name != "" && c.Email != "":
		return Account{}, "", errs.New(errs.CodeInvalid, "give a name or an address, not both")
	case c.Name != "":
		if _, key, err = text.FindName(c.Name); err != nil {
			return Account{}, "", err
		}
		found, err = s.store.byName(ctx, key)
		key = "name " + key
	case c.Email != "":
		if key, err = text.FindEmail(c.Email); err != nil {
			return Account{}, "", err
		}
		found, err = s.store.byEmail(ctx, key)
		key = "email " + key
	default:
		return Account{}, "", errs.New(errs.CodeInvalid, "a name or an address is missing")
	}
	if errs.CodeOf(err) == errs.CodeNotFound {
		err = nil
	}
	return found, key, err
}

// rehash replaces a hash that was made with other parameters. If it fails, the
// next log-in tries again.
func (s *Service) rehash(ctx context.Context, who password.Who, a Account, pass string) {
	hash, err := s.passwords.Hash(ctx, who, pass)
	if err == nil {
		err = s.store.replaceHash(ctx, a, hash)
	}
	if err != nil {
		s.log.WarnContext(ctx, "password not rehashed", "user", a.ID, "err", err)
	}
}

func (s *Service) logIn(ctx context.Context, a Account, device, network string) (LoggedIn, error) {
	token, started, err := s.sessions.Create(ctx, a.ID, device, network)
	if err != nil {
		return LoggedIn{}, fmt.Errorf("log in user %d: %w", a.ID, err)
	}
	return LoggedIn{Account: a, Session: started, Token: token}, nil
}

// Verify finds the session of a token; see session.Store.Verify.
func (s *Service) Verify(ctx context.Context, token []byte) (session.Session, error) {
	return s.sessions.Verify(ctx, token)
}

// LogOut ends a session.
func (s *Service) LogOut(ctx context.Context, sessionID uint64) error {
	return s.sessions.Revoke(ctx, sessionID)
}

// Me returns the account of a session. If the account is gone, it is
// unauthenticated.
func (s *Service) Me(ctx context.Context, current session.Session) (Account, error) {
	a, err := s.store.ByID(ctx, current.UserID)
	if errs.CodeOf(err) == errs.CodeNotFound {
		return Account{}, errs.Wrap(errs.CodeUnauthenticated, err, "this account no longer exists")
	}
	return a, err
}
