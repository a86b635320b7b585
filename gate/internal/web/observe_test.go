package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/msrchat/msrchat/gate/internal/problem"
	"github.com/msrchat/msrchat/gate/internal/request"
	"github.com/msrchat/msrchat/shared/errs"
)

// observed serves one request and returns its answer, its log and the metrics.
func observed(t *testing.T, handler http.HandlerFunc) (*httptest.ResponseRecorder, string, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	var log bytes.Buffer
	o := NewObserver(slog.New(slog.NewTextHandler(&log, nil)), reg,
		NewClientFinder([]netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}), time.Minute)
	router := NewRouter(time.Second, NewConcurrency(10, reg))
	router.HandleFunc("POST /thing", handler)
	r := httptest.NewRequest(http.MethodPost, "/thing", strings.NewReader("a body"))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Forwarded-For", "198.51.100.7")
	w := httptest.NewRecorder()
	o.Wrap(router).ServeHTTP(w, r)
	return w, log.String(), reg
}

func TestAPanicIsAProblem(t *testing.T) {
	w, log, reg := observed(t, func(http.ResponseWriter, *http.Request) { panic("at the disco") })
	var p problem.Problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != 500 || p.Code != string(errs.CodeInternal) ||
		p.Detail != "internal error" {
		t.Errorf("%d %s (%v)", w.Code, w.Body, err)
	}
	for _, want := range []string{
		"level=ERROR", "at the disco", "observe_test.go", "status=500", "client=198.51.100.7",
		"request=" + w.Header().Get("X-Request-Id"),
	} {
		if !strings.Contains(log, want) {
			t.Errorf("the log has no %q:\n%s", want, log)
		}
	}
	want := `
# HELP msrchat_gate_panics_total Handlers that panicked. Each is a bug.
# TYPE msrchat_gate_panics_total counter
msrchat_gate_panics_total 1
# HELP msrchat_gate_problems_total Requests that failed, by route and kind of failure (the code in the problem).
# TYPE msrchat_gate_problems_total counter
msrchat_gate_problems_total{code="internal",route="POST /thing"} 1
# HELP msrchat_gate_requests_total Requests answered, by route and HTTP status.
# TYPE msrchat_gate_requests_total counter
msrchat_gate_requests_total{route="POST /thing",status="500"} 1
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want),
		"msrchat_gate_panics_total", "msrchat_gate_problems_total", "msrchat_gate_requests_total"); err != nil {
		t.Error(err)
	}
}

func TestAPanicAfterTheAnswerBegan(t *testing.T) {
	w, log, _ := observed(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("half"))
		panic("too late")
	})
	if w.Code != http.StatusOK || w.Body.String() != "half" || !strings.Contains(log, "too late") {
		t.Errorf("%d %q, log %s", w.Code, w.Body, log)
	}
}

func TestAnAbortIsPassedOn(t *testing.T) {
	defer func() {
		err, ok := recover().(error)
		if !ok || !errors.Is(err, http.ErrAbortHandler) {
			t.Errorf("recovered %v", err)
		}
	}()
	observed(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	t.Error("the abort was swallowed")
}

func TestAHandlerHasADeadlineAndAnID(t *testing.T) {
	w, _, _ := observed(t, func(w http.ResponseWriter, r *http.Request) {
		if _, ok := r.Context().Deadline(); !ok {
			t.Error("no deadline")
		}
		_, _ = w.Write([]byte(request.From(r.Context()).ID + " " + request.From(r.Context()).Client.String()))
	})
	if want := w.Header().Get("X-Request-Id") + " 198.51.100.7"; w.Body.String() != want || len(want) < 20 {
		t.Errorf("got %q, want %q", w.Body, want)
	}
}

// The text of a client's error stays out of the log; that of ours is logged.
func TestOnlyOurOwnErrorsAreLogged(t *testing.T) {
	for _, c := range []struct {
		err    error
		logged bool
	}{
		{errs.Wrap(errs.CodeInvalid, errors.New("the cause"), "safe"), false},
		{errs.Wrap(errs.CodeUnavailable, errors.New("the cause"), "safe"), true},
		{errors.New("the cause"), true},
	} {
		_, log, _ := observed(t, func(w http.ResponseWriter, r *http.Request) {
			problem.Write(w, problem.From(r.Context(), c.err))
		})
		if strings.Contains(log, "the cause") != c.logged ||
			!strings.Contains(log, "code="+string(errs.CodeOf(c.err))) {
			t.Errorf("%v: log %s", c.err, log)
		}
	}
}
