package client

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/msrchat/msrchat/shared/errs"
)

// DefaultGate is the local fleet's gate.
const DefaultGate = "http://127.0.0.1:7700"

const (
	// gateTimeout bounds a request; registering waits for argon2id in a queue.
	gateTimeout = 15 * time.Second
	// gatePatience is how long Register and Login try again while gate is too busy.
	gatePatience = 30 * time.Second
	// maxAnswer bounds an answer's body.
	maxAnswer = 1 << 20
)

// Token is a session's secret. Logs and formats never show it.
type Token []byte

// String hides the token.
func (Token) String() string { return "[token]" }

// GoString hides the token.
func (Token) GoString() string { return "[token]" }

// LogValue hides the token.
func (Token) LogValue() slog.Value { return slog.StringValue("[token]") }

// Encode is the token's form in HTTP and in files.
func (t Token) Encode() string { return base64.RawURLEncoding.EncodeToString(t) }

// ParseToken is the inverse of Encode; padding is allowed.
func ParseToken(s string) (Token, error) {
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(s, "="))
	if err != nil || len(raw) == 0 {
		return nil, errors.New("this is not a session token") // without the text: it may be a part of one
	}
	return raw, nil
}

// User is an account.
type User struct {
	ID   uint64
	Name string
}

// Session is a log-in.
type Session struct {
	Token     Token
	User      User
	ExpiresAt time.Time
}

// Endpoint is a chat server's address for clients.
type Endpoint struct {
	Instance      string `json:"instance"`
	Address       string `json:"address"`
	TLSServerName string `json:"tls_server_name,omitempty"`
}

// Assignment says where to connect.
type Assignment struct {
	ID         string
	Server     Endpoint
	ExpiresAt  time.Time
	Alternates []Endpoint
}

// LoginReply is the answer to Register and Login.
type LoginReply struct {
	Session Session
	// Assignment is nil when the status service was away.
	Assignment *Assignment
}

// Registration is a new account.
type Registration struct {
	Email, Name, Password, Code string
	// Device names this installation: a new session ends the device's older one.
	Device string
	// Later: it does not connect at once, so no place is kept for it.
	Later bool
}

// Credentials are a name or an address, and a password.
type Credentials struct {
	Name, Email, Password, Device string
	// Later: it does not connect at once, so no place is kept for it.
	Later bool
}

// Me is the account and session behind a token.
type Me struct {
	User      User
	Email     string
	SessionID string
	Device    string
	ExpiresAt time.Time
}

// Gate calls the gate's HTTP API. Its methods may be called from any goroutine;
// their errors are *errs.Error, CodeUnavailable where gate cannot be reached.
type Gate struct {
	base *url.URL
	http *http.Client
}

// NewGate returns a client of the gate at a URL. transport may be nil.
func NewGate(rawURL string, transport http.RoundTripper) (*Gate, error) {
	u, err := url.Parse(strings.TrimRight(rawURL, "/"))
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, errs.New(errs.CodeInvalid, "the gate must be a URL like %s", DefaultGate).In("gate")
	}
	u.User = nil
	return &Gate{base: u, http: &http.Client{
		Transport: transport, Timeout: gateTimeout,
		// A redirect would carry the token to another host.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// URL is the gate's address.
func (g *Gate) URL() string { return g.base.String() }

// Code asks gate to mail a verification code for registering.
func (g *Gate) Code(ctx context.Context, email string) error {
	return g.call(ctx, http.MethodPost, "/v1/codes", nil, map[string]string{"email": email, "purpose": "register"}, nil)
}

// patiently repeats a call that gate refused for lack of room, until gatePatience or
// ctx ends. Such a call had no effect, so repeating it is safe.
func patiently(ctx context.Context, call func() error) error {
	for began, attempt := time.Now(), 1; ; attempt++ {
		err := call()
		wait := retryIn(err, attempt)
		if errs.CodeOf(err) != errs.CodeExhausted || time.Since(began)+wait > gatePatience {
			return err
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		}
	}
}

// Register makes an account and logs it in. Where many do so at once it waits
// its turn, for up to half a minute.
func (g *Gate) Register(ctx context.Context, r Registration) (LoginReply, error) {
	var answer loginJSON
	err := patiently(ctx, func() error {
		return g.call(ctx, http.MethodPost, entry("/v1/accounts", r.Later), nil, map[string]string{
			"email": r.Email, "name": r.Name, "password": r.Password, "code": r.Code, "device": r.Device,
		}, &answer)
	})
	if err != nil {
		return LoginReply{}, err
	}
	return answer.reply()
}

// Login begins a session. Where many do so at once it waits its turn, for up to
// half a minute.
func (g *Gate) Login(ctx context.Context, c Credentials) (LoginReply, error) {
	body := map[string]string{"password": c.Password, "device": c.Device}
	if c.Email != "" {
		body["email"] = c.Email
	} else {
		body["name"] = c.Name
	}
	var answer loginJSON
	err := patiently(ctx, func() error {
		return g.call(ctx, http.MethodPost, entry("/v1/sessions", c.Later), nil, body, &answer)
	})
	if err != nil {
		return LoginReply{}, err
	}
	return answer.reply()
}

// entry is the path that begins a session.
func entry(path string, later bool) string {
	if later {
		return path + "?later=true"
	}
	return path
}

// Logout ends the token's session.
func (g *Gate) Logout(ctx context.Context, token Token) error {
	return g.call(ctx, http.MethodDelete, "/v1/sessions/current", token, nil, nil)
}

// Me returns the account and session behind a token.
func (g *Gate) Me(ctx context.Context, token Token) (Me, error) {
	var answer struct {
		User struct {
			userJSON
			Email string `json:"email"`
		} `json:"user"`
		Session struct {
			ID          string `json:"id"`
			Device      string `json:"device"`
			ExpiresAtMS int64  `json:"expires_at_ms"`
		} `json:"session"`
	}
	if err := g.call(ctx, http.MethodGet, "/v1/me", token, nil, &answer); err != nil {
		return Me{}, err
	}
	user, err := answer.User.user()
	if err != nil {
		return Me{}, err
	}
	return Me{
		User: user, Email: answer.User.Email, SessionID: answer.Session.ID, Device: answer.Session.Device,
		ExpiresAt: time.UnixMilli(answer.Session.ExpiresAtMS),
	}, nil
}

// Assign asks for a chat server other than the instances to avoid.
func (g *Gate) Assign(ctx context.Context, token Token, avoid []string) (Assignment, error) {
	if avoid == nil {
		avoid = []string{}
	}
	var answer assignmentJSON
	body := map[string][]string{"avoid": avoid}
	if err := g.call(ctx, http.MethodPost, "/v1/assignments", token, body, &answer); err != nil {
		return Assignment{}, err
	}
	return answer.assignment(), nil
}

type userJSON struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

func (u userJSON) user() (User, error) {
	id, err := strconv.ParseUint(u.ID, 10, 64)
	if err != nil || id == 0 {
		return User{}, errs.Wrap(errs.CodeInternal, err, "the gate answered without a user id")
	}
	return User{ID: id, Name: u.Name}, nil
}

type assignmentJSON struct {
	ID          string     `json:"id"`
	Server      Endpoint   `json:"server"`
	ExpiresAtMS int64      `json:"expires_at_ms"`
	Alternates  []Endpoint `json:"alternates"`
}

func (a assignmentJSON) assignment() Assignment {
	return Assignment{ID: a.ID, Server: a.Server, ExpiresAt: time.UnixMilli(a.ExpiresAtMS), Alternates: a.Alternates}
}

type loginJSON struct {
	Token       string          `json:"token"`
	User        userJSON        `json:"user"`
	ExpiresAtMS int64           `json:"expires_at_ms"`
	Assignment  *assignmentJSON `json:"assignment"`
}

func (l loginJSON) reply() (LoginReply, error) {
	user, err := l.User.user()
	if err != nil {
		return LoginReply{}, err
	}
	token, err := ParseToken(l.Token)
	if err != nil {
		return LoginReply{}, errs.Wrap(errs.CodeInternal, err, "the gate answered without a session token")
	}
	r := LoginReply{Session: Session{Token: token, User: user, ExpiresAt: time.UnixMilli(l.ExpiresAtMS)}}
	if l.Assignment != nil {
		a := l.Assignment.assignment()
		r.Assignment = &a
	}
	return r, nil
}

// call makes one request. body nil is none, answer nil is ignored.
func (g *Gate) call(ctx context.Context, method, path string, token Token, body, answer any) error {
	var payload io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
		payload = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, g.base.String()+path, payload)
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != nil {
		req.Header.Set("Authorization", "Bearer "+token.Encode())
	}
	resp, err := g.http.Do(req)
	if err != nil {
		return errs.Wrap(errs.CodeUnavailable, err, "the gate at "+g.URL()+" cannot be reached")
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return errs.Wrap(errs.CodeUnavailable, err, "the gate at "+g.URL()+" broke off")
	}
	if resp.StatusCode/100 != 2 {
		return problem(resp, raw)
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(raw, answer); err != nil {
		return errs.Wrap(errs.CodeUnavailable, err, "what answers at "+g.URL()+" is not a gate")
	}
	return nil
}

// problem turns a refusal into the error that gate meant.
func problem(resp *http.Response, raw []byte) error {
	var p struct {
		Title        string    `json:"title"`
		Detail       string    `json:"detail"`
		Code         errs.Code `json:"code"`
		RetryAfterMS int64     `json:"retry_after_ms"`
		Errors       []struct {
			Message  string `json:"message"`
			Location string `json:"location"`
		} `json:"errors"`
	}
	// Of an answer that is no problem document (a proxy's page) only the status counts.
	_ = json.Unmarshal(raw, &p)
	code := errs.FromHTTPStatus(resp.StatusCode)
	switch {
	case p.Code != "":
		code = errs.Known(p.Code)
	case resp.StatusCode == http.StatusBadRequest:
		code = errs.CodeInvalid
	case resp.StatusCode == http.StatusGatewayTimeout:
		code = errs.CodeUnavailable
	}
	message := p.Detail
	if message == "" {
		message = p.Title
	}
	if message == "" {
		message = "the gate answered " + resp.Status
	}
	field := ""
	if len(p.Errors) > 0 {
		field = strings.TrimPrefix(p.Errors[0].Location, "body.")
		if m := p.Errors[0].Message; m != "" && m != message {
			message += ": " + m
			if field != "" && !strings.Contains(m, field) {
				message += " (" + field + ")"
			}
		}
	}
	e := errs.New(code, "%s", message)
	if field != "" {
		e = e.In(field)
	}
	if p.RetryAfterMS > 0 {
		e = e.Retry(time.Duration(min(p.RetryAfterMS, int64(24*time.Hour/time.Millisecond))) * time.Millisecond)
	} else if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 {
		e = e.Retry(time.Duration(min(s, 86_400)) * time.Second)
	}
	return e
}
