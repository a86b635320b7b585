package gate

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"time"

	"github.com/msrchat/msrchat/gate/internal/account"
	"github.com/msrchat/msrchat/gate/internal/limit"
	"github.com/msrchat/msrchat/gate/internal/mail"
	"github.com/msrchat/msrchat/gate/internal/password"
	"github.com/msrchat/msrchat/shared/cache"
	"github.com/msrchat/msrchat/shared/database"
	"github.com/msrchat/msrchat/shared/discovery"
	"github.com/msrchat/msrchat/shared/process"
)

// Config is everything that a gate needs to know. Start from Defaults.
type Config struct {
	// Instance names this process, Release its version label, Zone where it is;
	// chat servers of the same zone are preferred.
	Instance string
	Release  string
	Zone     string
	// Bind is the listener's address, Advertise the one that others use; empty:
	// as bound.
	Bind      string
	Advertise string
	// AdminBind is the listener for operators: /metrics, which people's programs have
	// no use for and which costs time.
	AdminBind string
	// Register makes the process register itself in the catalog. Never under Nomad,
	// which does it.
	Register bool
	// Catalog finds the status servers, and is where Register registers.
	Catalog discovery.Catalog `json:"-"`
	// StatusTarget is a gRPC target to use instead of the catalog's service "status".
	StatusTarget string
	// StatusTimeout bounds each of the two attempts at an assignment.
	StatusTimeout time.Duration

	MySQL database.Config
	Redis cache.Config
	SMTP  SMTP
	HTTP  HTTP

	Codes     Codes
	LogIns    LogIns
	Passwords Passwords
	// SessionLifetime is how long a log-in lasts.
	SessionLifetime time.Duration

	// TrustedProxies are the networks of proxies whose X-Forwarded-For is
	// believed; limits then count the client behind them.
	TrustedProxies []netip.Prefix

	// Drain is how long requests are still taken after /readyz began to fail, so
	// that load balancers notice. Under Nomad shutdown_delay does that.
	Drain time.Duration
	// Grace bounds the whole stop: Drain, requests in flight, mail.
	Grace time.Duration

	// UpdateAfter is when, after its start, a gate looks for accounts that an older one has
	// made: after a rolling upgrade, in which that one ends within seconds.
	UpdateAfter time.Duration
}

// SMTP is the mail server that sends our mail, and how long mail may wait.
type SMTP struct {
	Addr string
	// From is the sender.
	From string
	// TLS is none, starttls (required) or tls. Empty means none for a server on
	// loopback, else starttls.
	TLS            string
	User, Password string
	// Timeout bounds connecting, and separately sending one mail.
	Timeout time.Duration
	// Queue is how many mails may wait, Workers how many are sent at once.
	Queue, Workers int
	// FirstRetry is the pause after the first failed attempt; it doubles up to
	// LastRetry.
	FirstRetry, LastRetry time.Duration
	// Flush is for how long mail is still sent when the process ends.
	Flush time.Duration
}

// HTTP bounds what connections may cost.
type HTTP struct {
	// HeaderTimeout bounds reading a request's header, BodyTimeout its body,
	// RequestTimeout the answer, the body included.
	HeaderTimeout  time.Duration
	BodyTimeout    time.Duration
	RequestTimeout time.Duration
	// IdleTimeout is between two requests.
	IdleTimeout    time.Duration
	MaxHeaderBytes int
	// MaxRequests are worked on at once; further ones are refused with a retry
	// time.
	MaxRequests int
}

// Codes is how verification codes are protected, and how many are sent.
type Codes struct {
	Lifetime time.Duration
	// Tries is how many wrong codes kill the right one.
	Tries int
	// Secret is the key of the codes' hashes in Redis, the same on every gate.
	// Without it they are only salted.
	Secret []byte `json:"-"`
	// Pause is the least time between two codes to one address.
	Pause time.Duration

	// A client is an IPv4 address or an IPv6 /56.
	PerAddress              Limit // by one client
	PerAddressAndClientLong Limit
	PerAddressLong          Limit // by anybody
	PerClient               Limit
}

// LogIns are limits of log-ins with a wrong password, and of attempts to
// register. A client is an IPv4 address or an IPv6 /56.
type LogIns struct {
	PerAccountAndClient    Limit
	PerAccount             Limit
	PerClient              Limit
	RegistrationsPerClient Limit
}

// Passwords is the work of hashing one (argon2id), and how many are at once.
type Passwords struct {
	MemoryKiB     uint32
	Passes, Lanes int
	// AtOnce are hashed at the same time, Waiting more wait for up to Wait.
	AtOnce, Waiting int
	Wait            time.Duration
}

// Defaults is a configuration for the local fleet. Instance and the databases'
// passwords are left empty.
func Defaults() Config {
	return Config{
		Bind:          "127.0.0.1:7700",
		AdminBind:     "127.0.0.1:0",
		StatusTimeout: time.Second,
		MySQL:         database.Defaults(),
		Redis:         cache.Defaults(),
		SMTP: SMTP{
			Addr: "127.0.0.1:7725", From: "msrChat <noreply@msrchat.invalid>", Timeout: 10 * time.Second,
			// Filled in a minute without the mail server, at four codes a second.
			Queue: 256, Workers: 4,
			FirstRetry: time.Second, LastRetry: 30 * time.Second, Flush: 5 * time.Second,
		},
		HTTP: HTTP{
			HeaderTimeout: 5 * time.Second, BodyTimeout: 5 * time.Second, RequestTimeout: 10 * time.Second,
			IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
			// All users of a chat server that died come at once, and each takes
			// a few milliseconds.
			MaxRequests: 2048,
		},
		Codes: Codes{
			Lifetime: 10 * time.Minute, Tries: 5, Pause: 30 * time.Second,
			PerAddress:              Limit{3, 10 * time.Minute},
			PerAddressAndClientLong: Limit{10, 24 * time.Hour},
			// Together with Tries: 250 guesses a day at one in a million. Higher than what
			// one client may ask for, because anybody can use it up for somebody else.
			PerAddressLong: Limit{50, 24 * time.Hour},
			// For a class or an office behind one address.
			PerClient: Limit{30, 10 * time.Minute},
		},
		LogIns: LogIns{
			PerAccountAndClient: Limit{10, 10 * time.Minute},
			// Higher, because anybody can use it up for somebody else.
			PerAccount:             Limit{100, 10 * time.Minute},
			PerClient:              Limit{100, 10 * time.Minute},
			RegistrationsPerClient: Limit{60, 10 * time.Minute},
		},
		// OWASP's first recommendation for argon2id: 19 MiB, two passes, one
		// lane. About 25 ms on one core. On half of the cores, so that a flood of
		// passwords leaves the others to everything else.
		Passwords: Passwords{
			MemoryKiB: 19456, Passes: 2, Lanes: 1,
			AtOnce: max(runtime.NumCPU()/2, 1),
			// Less than the request's ten seconds. In that time one core hashes some three
			// hundred.
			Waiting: 512, Wait: 8 * time.Second,
		},
		SessionLifetime: 90 * 24 * time.Hour,
		// Below the 20 s between the Nomad job's SIGTERM and SIGKILL.
		Grace:       18 * time.Second,
		UpdateAfter: time.Minute,
	}
}

// Validate says what is wrong with a configuration before anything is bound or
// dialled.
func (c Config) Validate() error {
	if c.Instance == "" {
		return errors.New("the instance is empty; set --instance")
	}
	if _, _, err := net.SplitHostPort(c.Bind); err != nil {
		return fmt.Errorf("the HTTP address %q is not host:port", c.Bind)
	}
	if _, _, err := net.SplitHostPort(c.AdminBind); err != nil {
		return fmt.Errorf("the operators' address %q is not host:port", c.AdminBind)
	}
	if c.Advertise != "" {
		if _, _, err := net.SplitHostPort(c.Advertise); err != nil {
			return fmt.Errorf("the advertised address %q is not host:port", c.Advertise)
		}
	}
	if c.Catalog == nil && (c.Register || c.StatusTarget == "") {
		return errors.New("there is neither a catalog nor a status target; set --consul-addr")
	}
	if s := c.SMTP; s.Queue < 1 || s.Workers < 1 || s.Flush < 0 || s.FirstRetry <= 0 || s.LastRetry < s.FirstRetry {
		return errors.New("the mail queue and its workers must be at least 1, the retries' pauses positive and growing")
	}
	if err := c.times(); err != nil {
		return err
	}
	if err := c.codes(); err != nil {
		return err
	}
	if c.Passwords.Passes < 0 || c.Passwords.Lanes < 0 || c.Passwords.Lanes > 255 {
		return errors.New("the password passes and lanes must not be negative, the lanes not over 255")
	}
	return errors.Join(c.MySQL.Validate(), c.Redis.Validate(), c.smtp().Validate(), c.passwords().Validate())
}

func (c Config) times() error {
	for name, d := range map[string]time.Duration{
		"status timeout":       c.StatusTimeout,
		"HTTP header timeout":  c.HTTP.HeaderTimeout,
		"HTTP body timeout":    c.HTTP.BodyTimeout,
		"HTTP request timeout": c.HTTP.RequestTimeout,
		"HTTP idle timeout":    c.HTTP.IdleTimeout,
		"session lifetime":     c.SessionLifetime,
		"code lifetime":        c.Codes.Lifetime,
		"grace":                c.Grace,
		"time of the update":   c.UpdateAfter,
	} {
		if d <= 0 {
			return fmt.Errorf("the %s of %s must be positive", name, d)
		}
	}
	if c.Drain < 0 || c.Drain >= c.Grace {
		return fmt.Errorf("the drain of %s must be shorter than the grace of %s", c.Drain, c.Grace)
	}
	if c.HTTP.MaxHeaderBytes < 1<<10 {
		return errors.New("the largest HTTP header must be at least 1 KiB")
	}
	if c.HTTP.MaxRequests < 1 {
		return errors.New("the HTTP requests at once must be at least 1")
	}
	return nil
}

func (c Config) codes() error {
	if c.Codes.Tries < 1 || c.Codes.Tries > 20 {
		return fmt.Errorf("%d tries for a code: want 1 to 20 of a million", c.Codes.Tries)
	}
	if c.Codes.Pause < 0 {
		return errors.New("the pause between two codes must not be negative")
	}
	for name, l := range map[string]Limit{
		"codes per address":                 c.Codes.PerAddress,
		"codes per address in the long run": c.Codes.PerAddressLong,
		"codes per address and client":      c.Codes.PerAddressAndClientLong,
		"codes per client":                  c.Codes.PerClient,
		"log-ins per account and client":    c.LogIns.PerAccountAndClient,
		"log-ins per account":               c.LogIns.PerAccount,
		"log-ins per client":                c.LogIns.PerClient,
		"registrations per client":          c.LogIns.RegistrationsPerClient,
	} {
		if err := l.validate(); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// reservedFiles are for the rest: listeners, the log, status, Consul, mail.
const reservedFiles = 256

// connections is how many HTTP connections the limit of open files allows.
func (c Config) connections() (int, error) {
	files, err := process.OpenFiles()
	if err != nil {
		return 0, err
	}
	pools := cmp.Or(c.MySQL.MaxOpen, database.DefaultMaxOpen) + cmp.Or(c.Redis.PoolSize, cache.DefaultPoolSize)
	most := files - reservedFiles - pools
	if most < c.HTTP.MaxRequests/8 {
		return 0, fmt.Errorf("the limit of %d open files leaves room for %d HTTP connections: raise it (ulimit -n)",
			files, max(most, 0))
	}
	return most, nil
}

func (c Config) smtp() mail.SMTPConfig {
	mode := c.SMTP.TLS
	if mode == "" {
		mode = "starttls"
		host, _, _ := net.SplitHostPort(c.SMTP.Addr) // Validate reports what is wrong with it
		if ip, err := netip.ParseAddr(host); host == "localhost" || err == nil && ip.IsLoopback() {
			mode = "none"
		}
	}
	return mail.SMTPConfig{
		Addr: c.SMTP.Addr, From: c.SMTP.From, TLS: mode,
		User: c.SMTP.User, Password: c.SMTP.Password, Timeout: c.SMTP.Timeout,
	}
}

func (c Config) queue() mail.QueueConfig {
	return mail.QueueConfig{
		Size: c.SMTP.Queue, Workers: c.SMTP.Workers,
		FirstRetry: c.SMTP.FirstRetry, LastRetry: c.SMTP.LastRetry, Flush: c.SMTP.Flush,
	}
}

func (c Config) passwords() password.Config {
	p := c.Passwords
	return password.Config{
		Params: password.Params{MemoryKiB: p.MemoryKiB, Passes: uint32(p.Passes), Lanes: uint8(p.Lanes)},
		AtOnce: p.AtOnce, Waiting: p.Waiting, Wait: p.Wait,
	}
}

func (c Config) rules() account.Rules {
	return account.Rules{
		CodePause:                    c.Codes.Pause,
		CodesPerAddress:              limit.Rule(c.Codes.PerAddress),
		CodesPerAddressAndClientLong: limit.Rule(c.Codes.PerAddressAndClientLong),
		CodesPerAddressLong:          limit.Rule(c.Codes.PerAddressLong),
		CodesPerClient:               limit.Rule(c.Codes.PerClient),
		RegistrationsPerClient:       limit.Rule(c.LogIns.RegistrationsPerClient),
		LogInsPerAccountAndClient:    limit.Rule(c.LogIns.PerAccountAndClient),
		LogInsPerAccount:             limit.Rule(c.LogIns.PerAccount),
		LogInsPerClient:              limit.Rule(c.LogIns.PerClient),
	}
}
