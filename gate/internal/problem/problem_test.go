package problem

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/msrchat/msrchat/gate/internal/request"
	"github.com/msrchat/msrchat/shared/errs"
)

func TestFrom(t *testing.T) {
	for _, c := range []struct {
		name   string
		err    error
		status int
		code   errs.Code
		detail string
		retry  string
	}{
		{"domain", errs.New(errs.CodeConflict, "taken").In("name"), 409, errs.CodeConflict, "taken", ""},
		{
			"retry, rounded up", errs.New(errs.CodeRateLimited, "slower").Retry(1200 * time.Millisecond), 429,
			errs.CodeRateLimited, "slower", "2",
		},
		{"foreign", errors.New("dial 10.0.0.1 as root"), 500, errs.CodeInternal, "internal error", ""},
		{"deadline", context.DeadlineExceeded, 502, errs.CodeUnavailable, "this took too long; try again", "1"},
	} {
		info := &request.Info{ID: "abc"}
		ctx := request.With(t.Context(), info)
		p := From(ctx, c.err)
		if p.Status != c.status || p.Code != string(c.code) || p.Detail != c.detail ||
			p.GetHeaders().Get("Retry-After") != c.retry || p.Instance != "urn:msrchat:request:abc" {
			t.Errorf("%s: %+v", c.name, p)
		}
		if info.Code != c.code || info.Err == nil {
			t.Errorf("%s: recorded %q, %v", c.name, info.Code, info.Err)
		}
		if again := From(ctx, p); again != p {
			t.Errorf("%s: a problem changed on its way", c.name)
		}
	}
}

// Of huma's messages only those without a value of the request are shown.
func TestTransformRepeatsNothing(t *testing.T) {
	ctx := humago.NewContext(&huma.Operation{}, httptest.NewRequest(http.MethodPost, "/", nil), httptest.NewRecorder())
	const secret = "hunter2"
	model := &huma.ErrorModel{Status: 422, Detail: "validation failed", Errors: []*huma.ErrorDetail{
		{Message: "expected string", Location: "body.password", Value: secret},
		{Message: "expected length <= 16", Location: "body.avoid[3]"},
		{
			Message:  "unexpected property",
			Location: "body." + secret + " <script>",
			Value:    map[string]any{"password": secret},
		},
		{Message: "invalid character in " + secret, Location: "body"},
		nil,
	}}
	got, err := Transform(ctx, "422", model)
	if err != nil {
		t.Fatal(err)
	}
	p, ok := got.(*Problem)
	if !ok {
		t.Fatalf("got %T", got)
	}
	w := httptest.NewRecorder()
	Write(w, p)
	body := w.Body.String()
	if strings.Contains(body, secret) || strings.Contains(body, "script") {
		t.Errorf("repeated: %s", body)
	}
	for _, want := range []string{
		`"location":"body.password"`, `"expected string"`, `"location":"body.avoid[3]"`,
		`"expected length \u003c= 16"`, `"unexpected property"`, `"code":"invalid"`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s in %s", want, body)
		}
	}
	if other, err := Transform(ctx, "200", "a success"); err != nil || other != "a success" {
		t.Errorf("a success became %v, %v", other, err)
	}
}
