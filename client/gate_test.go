package client_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/client/internal/fake"
	"github.com/msrchat/msrchat/shared/errs"
)

func TestAccountsAndSessions(t *testing.T) {
	w := newWorld(t, 1)
	ctx := bounded(t)
	if err := w.api.Code(ctx, "王@example.org"); err != nil {
		t.Fatal(err)
	}
	if err := w.api.Code(ctx, "nonsense"); errs.CodeOf(err) != errs.CodeInvalid {
		t.Errorf("bad address: %v", err)
	}
	r := client.Registration{
		Email: "c@example.org", Name: "Carol", Password: "correct horse", Code: "000000",
		Device: "d1",
	}
	if _, err := w.api.Register(ctx, r); errs.CodeOf(err) != errs.CodeInvalid || errs.From(err).Field != "code" {
		t.Errorf("wrong code: %v", err)
	}
	r.Code = fake.Code
	first, err := w.api.Register(ctx, r)
	if err != nil || first.Session.User.Name != "Carol" || len(first.Session.Token) != 32 || first.Assignment != nil {
		t.Fatalf("register: %+v, %v", first, err)
	}
	if _, err := w.api.Register(ctx, r); errs.CodeOf(err) != errs.CodeConflict {
		t.Errorf("taken name: %v", err)
	}
	wrong := client.Credentials{Name: "carol", Password: "wrong", Device: "d1"}
	if _, err := w.api.Login(ctx, wrong); errs.CodeOf(err) != errs.CodeUnauthenticated {
		t.Errorf("wrong password: %v", err)
	}
	second, err := w.api.Login(ctx, client.Credentials{Email: "c@example.org", Password: "correct horse", Device: "d1"})
	if err != nil {
		t.Fatal(err)
	}
	// A new log-in on a device ends its older session.
	if _, err := w.api.Me(ctx, first.Session.Token); errs.CodeOf(err) != errs.CodeUnauthenticated {
		t.Errorf("replaced session: %v", err)
	}
	me, err := w.api.Me(ctx, second.Session.Token)
	if err != nil || me.User != second.Session.User || me.Email != "c@example.org" {
		t.Errorf("me: %+v, %v", me, err)
	}
	a, err := w.api.Assign(ctx, second.Session.Token, nil)
	if err != nil || a.Server.Instance != "s1" || a.Server.Address == "" || a.ID == "" || time.Until(a.ExpiresAt) <= 0 {
		t.Errorf("assignment: %+v, %v", a, err)
	}
	if err := w.api.Logout(ctx, second.Session.Token); err != nil {
		t.Fatal(err)
	}
	if _, err := w.api.Assign(ctx, second.Session.Token, nil); errs.CodeOf(err) != errs.CodeUnauthenticated {
		t.Errorf("assignment after logging out: %v", err)
	}
}

func TestGateAnswersOfAllKinds(t *testing.T) {
	for _, c := range []struct {
		name, body string
		status     int
		header     string
		code       errs.Code
		message    string
		retry      time.Duration
		field      string
	}{
		{
			"problem", `{"code":"rate_limited","detail":"too often","retry_after_ms":1500}`, 429, "",
			errs.CodeRateLimited, "too often", 1500 * time.Millisecond, "",
		},
		{
			"huma problem", `{"title":"Unprocessable Entity","detail":"validation failed",
				"errors":[{"message":"expected length >= 8","location":"body.password"}]}`, 422, "",
			errs.CodeInvalid, "validation failed: expected length >= 8 (password)", 0, "password",
		},
		{
			"retry in a header", `{}`, 503, "40", errs.CodeExhausted, "the gate answered 503 Service Unavailable",
			40 * time.Second, "",
		},
		{
			"proxy's page", `<html>Bad gateway</html>`, 502, "", errs.CodeUnavailable,
			"the gate answered 502 Bad Gateway", 0, "",
		},
		{"proxy's timeout", ``, 504, "", errs.CodeUnavailable, "the gate answered 504 Gateway Timeout", 0, ""},
		{"bad request", `{"detail":"no JSON"}`, 400, "", errs.CodeInvalid, "no JSON", 0, ""},
		{"unknown code", `{"code":"from the future","detail":"hm"}`, 418, "", errs.CodeInternal, "hm", 0, ""},
		{"another server", `hello`, 200, "", errs.CodeUnavailable, "is not a gate", 0, ""},
		{"no user", `{"token":"AAAA","user":{"id":"x"}}`, 201, "", errs.CodeInternal, "without a user id", 0, ""},
		{"no token", `{"token":"","user":{"id":"7"}}`, 201, "", errs.CodeInternal, "without a session token", 0, ""},
		{
			"huge", `{"token":"` + strings.Repeat("A", 2<<20) + `"}`, 201, "", errs.CodeUnavailable,
			"is not a gate", 0, "",
		},
		{"redirect", ``, 307, "", errs.CodeInternal, "307", 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if c.header != "" {
					w.Header().Set("Retry-After", c.header)
				}
				w.Header().Set("Location", "http://127.0.0.1:1/")
				w.WriteHeader(c.status)
				_, _ = w.Write([]byte(c.body))
			}))
			defer server.Close()
			g, err := client.NewGate(server.URL+"/", nil)
			if err != nil {
				t.Fatal(err)
			}
			_, err = g.Login(t.Context(), client.Credentials{Name: "a", Password: "hunter2 hunter2"})
			e := errs.From(err)
			if err == nil || e.Code != c.code || !strings.Contains(e.Message, c.message) || e.RetryAfter != c.retry ||
				e.Field != c.field {
				t.Errorf("got %s %q, retry %v, field %q", e.Code, e.Message, e.RetryAfter, e.Field)
			}
			if strings.Contains(fmt.Sprint(err), "hunter2") {
				t.Error("the error shows the password")
			}
		})
	}
}

// Where many log in at once, a log-in waits for its turn as gate asks; what
// else is refused is not repeated.
func TestALogInWaitsForItsTurn(t *testing.T) {
	var calls, full atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if calls.Add(1) <= full.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = w.Write([]byte(`{"code":"exhausted","detail":"too many people","retry_after_ms":20}`))
			return
		}
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write([]byte(`{"token":"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY","user":{"id":"7","name":"ann"}}`))
	}))
	defer server.Close()
	g, err := client.NewGate(server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, logIn := range map[string]func(context.Context) (client.LoginReply, error){
		"log in": func(ctx context.Context) (client.LoginReply, error) {
			return g.Login(ctx, client.Credentials{Name: "ann"})
		},
		"register": func(ctx context.Context) (client.LoginReply, error) {
			return g.Register(ctx, client.Registration{})
		},
	} {
		calls.Store(0)
		full.Store(2)
		if got, err := logIn(t.Context()); err != nil || got.Session.User.ID != 7 || calls.Load() != 3 {
			t.Errorf("%s: %v, %v after %d calls", name, got, err, calls.Load())
		}
		calls.Store(0)
		full.Store(1 << 40)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		if _, err := logIn(ctx); errs.CodeOf(err) != errs.CodeExhausted && errs.CodeOf(err) != errs.CodeUnavailable {
			t.Errorf("%s, given up: %v", name, err)
		}
		cancel()
	}
	calls.Store(0)
	if err := g.Code(t.Context(), "a@example.org"); errs.CodeOf(err) != errs.CodeExhausted || calls.Load() != 1 {
		t.Errorf("a code: %v after %d calls", err, calls.Load())
	}
}

func TestAGateOutOfReach(t *testing.T) {
	g, err := client.NewGate("http://127.0.0.1:1", nil)
	if err != nil {
		t.Fatal(err)
	}
	err = g.Code(t.Context(), "a@example.org")
	if errs.CodeOf(err) != errs.CodeUnavailable ||
		!strings.Contains(errs.From(err).Message, "http://127.0.0.1:1 cannot be reached") {
		t.Errorf("got %v", err)
	}
	for _, bad := range []string{"", "127.0.0.1:7700", "ftp://x", "http://", "::"} {
		if _, err := client.NewGate(bad, nil); errs.CodeOf(err) != errs.CodeInvalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestATokenDoesNotShowItself(t *testing.T) {
	token := client.Token("0123456789abcdef0123456789abcdef")
	shown := fmt.Sprintf("%s %v %+v %#v %q", token, token, client.Session{Token: token}, client.Session{Token: token},
		token)
	for _, secret := range []string{"0123", token.Encode(), "30 31", "48 49", "0x30"} {
		if strings.Contains(shown, secret) {
			t.Errorf("shown: %s", shown)
		}
	}
	back, err := client.ParseToken(token.Encode() + "=")
	if err != nil || string(back) != string(token) {
		t.Errorf("back: %v", err)
	}
	if _, err := client.ParseToken("§"); err == nil || errors.Unwrap(err) != nil || strings.Contains(err.Error(), "§") {
		t.Errorf("bad token: %v", err)
	}
}
