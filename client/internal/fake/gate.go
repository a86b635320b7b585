package fake

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/text"
)

// Code is the verification code that Gate takes.
const Code = "123456"

// Gate is a gate over HTTP that assigns the servers of a log in turn.
type Gate struct {
	URL    string
	log    *Log
	server *httptest.Server

	mu     sync.Mutex
	fail   error      // answered to everything; under mu
	avoids [][]string // of every assignment; under mu
	next   int        // under mu
	only   []string   // instances to assign; all if empty; under mu
}

// NewGate starts a gate. It ends with the test.
func NewGate(t testing.TB, l *Log) *Gate {
	t.Helper()
	g := &Gate{log: l}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/codes", g.code)
	mux.HandleFunc("POST /v1/accounts", g.register)
	mux.HandleFunc("POST /v1/sessions", g.login)
	mux.HandleFunc("DELETE /v1/sessions/current", g.logout)
	mux.HandleFunc("GET /v1/me", g.me)
	mux.HandleFunc("POST /v1/assignments", g.assign)
	g.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.mu.Lock()
		fail := g.fail
		g.mu.Unlock()
		if fail != nil {
			refuse(w, fail)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	g.URL = g.server.URL
	t.Cleanup(g.server.Close)
	return g
}

// Fail makes the gate refuse everything; nil ends that.
func (g *Gate) Fail(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.fail = err
}

// Kill ends the gate: connections to it are refused.
func (g *Gate) Kill() { g.server.Close() }

// Only restricts the instances that are assigned.
func (g *Gate) Only(instances ...string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.only = instances
}

// Avoids returns the wishes of every request for an assignment.
func (g *Gate) Avoids() [][]string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.avoids)
}

func refuse(w http.ResponseWriter, err error) {
	e := errs.From(err)
	problem := map[string]any{
		"status": e.Code.HTTPStatus(), "title": http.StatusText(e.Code.HTTPStatus()), "detail": e.Message,
		"code": e.Code, "retry_after_ms": e.RetryAfter / time.Millisecond,
	}
	if e.Field != "" {
		problem["errors"] = []map[string]string{{"location": "body." + e.Field, "message": e.Message}}
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(e.Code.HTTPStatus())
	_ = json.NewEncoder(w).Encode(problem)
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if body != nil {
		_ = json.NewEncoder(w).Encode(body)
	}
}

type accountRequest struct {
	Email    string `json:"email"`
	Name     string `json:"name"`
	Password string `json:"password"`
	Code     string `json:"code"`
	Device   string `json:"device"`
	Purpose  string `json:"purpose"`
}

func body(r *http.Request) (b accountRequest) {
	_ = json.NewDecoder(r.Body).Decode(&b)
	return b
}

func (g *Gate) code(w http.ResponseWriter, r *http.Request) {
	b := body(r)
	if _, _, err := text.Email(b.Email); err != nil {
		refuse(w, err)
		return
	}
	if b.Purpose != "register" {
		refuse(w, errs.New(errs.CodeInvalid, "unknown purpose"))
		return
	}
	reply(w, http.StatusAccepted, map[string]any{})
}

func (g *Gate) register(w http.ResponseWriter, r *http.Request) {
	b := body(r)
	if b.Code != Code {
		refuse(w, errs.New(errs.CodeInvalid, "the code is wrong or has expired").In("code"))
		return
	}
	g.log.mu.Lock()
	u, err := g.log.addUser(b.Name)
	if err == nil {
		u.email, u.password = b.Email, b.Password
	}
	g.log.mu.Unlock()
	if err != nil {
		refuse(w, err)
		return
	}
	g.loggedIn(w, http.StatusCreated, u, b.Device)
}

func (g *Gate) login(w http.ResponseWriter, r *http.Request) {
	b := body(r)
	_, key, _ := text.Name(b.Name)
	g.log.mu.Lock()
	var found *user
	for _, u := range g.log.users {
		if (b.Email != "" && u.email == b.Email || b.Email == "" && u.key == key) && u.password == b.Password {
			found = u
		}
	}
	g.log.mu.Unlock()
	if found == nil {
		refuse(w, errs.New(errs.CodeUnauthenticated, "the name or the password is wrong"))
		return
	}
	g.loggedIn(w, http.StatusCreated, found, b.Device)
}

func (g *Gate) loggedIn(w http.ResponseWriter, status int, u *user, device string) {
	g.log.mu.Lock()
	token := u.newToken(device)
	g.log.mu.Unlock()
	reply(w, status, map[string]any{
		"token": base64.RawURLEncoding.EncodeToString(token), "expires_at_ms": time.Now().Add(time.Hour).UnixMilli(),
		"user": map[string]string{"id": strconv.FormatUint(u.id, 10), "name": u.name}, "assignment": nil,
	})
}

func (g *Gate) user(w http.ResponseWriter, r *http.Request) (*user, []byte) {
	token, _ := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
	g.log.mu.Lock()
	u := g.log.byToken(token)
	g.log.mu.Unlock()
	if u == nil {
		refuse(w, errs.New(errs.CodeUnauthenticated, "the session has ended"))
	}
	return u, token
}

func (g *Gate) logout(w http.ResponseWriter, r *http.Request) {
	if u, token := g.user(w, r); u != nil {
		g.log.mu.Lock()
		u.revoke(token)
		g.log.mu.Unlock()
		w.WriteHeader(http.StatusNoContent)
	}
}

func (g *Gate) me(w http.ResponseWriter, r *http.Request) {
	if u, _ := g.user(w, r); u != nil {
		reply(w, http.StatusOK, map[string]any{
			"user":    map[string]string{"id": strconv.FormatUint(u.id, 10), "name": u.name, "email": u.email},
			"session": map[string]any{"id": "1", "device": "d", "expires_at_ms": time.Now().Add(time.Hour).UnixMilli()},
		})
	}
}

func (g *Gate) assign(w http.ResponseWriter, r *http.Request) {
	if u, _ := g.user(w, r); u == nil {
		return
	}
	var wish struct {
		Avoid []string `json:"avoid"`
	}
	_ = json.NewDecoder(r.Body).Decode(&wish)
	g.log.mu.Lock()
	servers := slices.Clone(g.log.servers)
	g.log.mu.Unlock()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.avoids = append(g.avoids, wish.Avoid)
	g.next++
	var good, all []map[string]string
	for i := range servers {
		s := servers[(i+g.next)%len(servers)]
		e := map[string]string{"instance": s.Instance, "address": s.Endpoint().GetAddress(), "tls_server_name": ""}
		all = append(all, e)
		allowed := len(g.only) == 0 || slices.Contains(g.only, s.Instance)
		if allowed && !slices.Contains(wish.Avoid, s.Instance) {
			good = append(good, e)
		}
	}
	if len(good) == 0 {
		refuse(w, errs.New(errs.CodeExhausted, "every server is full").Retry(20*time.Millisecond))
		return
	}
	reply(w, http.StatusOK, map[string]any{
		"id": "a" + strconv.Itoa(g.next), "server": good[0], "alternates": all,
		"expires_at_ms": time.Now().Add(10 * time.Second).UnixMilli(),
	})
}
