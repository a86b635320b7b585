// Package web is the middleware of gate's HTTP API: ids, log lines, metrics,
// panics, limits of bodies and times, and answers to requests that no operation
// answers.
package web

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/msrchat/msrchat/gate/internal/problem"
	"github.com/msrchat/msrchat/gate/internal/request"
	"github.com/msrchat/msrchat/shared/errs"
)

// Observer gives every request an id, a log line and metrics, and answers it
// with a problem if its handler panics.
type Observer struct {
	log     *slog.Logger
	clients ClientFinder
	timeout time.Duration

	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	problems *prometheus.CounterVec
	panics   prometheus.Counter
}

// NewObserver returns an observer whose metrics are registered with reg. A
// request's context ends after timeout.
func NewObserver(log *slog.Logger, reg prometheus.Registerer, clients ClientFinder, timeout time.Duration) *Observer {
	o := &Observer{
		log: log, clients: clients, timeout: timeout,
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "msrchat_gate_requests_total", Help: "Requests answered, by route and HTTP status.",
		}, []string{"route", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "msrchat_gate_request_seconds",
			Help: "Time from a request's header to the end of its answer, by route.",
			// From a health check to a password that waited for its turn.
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"route"}),
		problems: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "msrchat_gate_problems_total",
			Help: "Requests that failed, by route and kind of failure (the code in the problem).",
		}, []string{"route", "code"}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "msrchat_gate_panics_total", Help: "Handlers that panicked. Each is a bug.",
		}),
	}
	reg.MustRegister(o.requests, o.seconds, o.problems, o.panics)
	return o
}

// answer records what was answered. It belongs to the request's goroutine.
type answer struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (a *answer) WriteHeader(status int) {
	if a.status == 0 && status >= 200 {
		a.status = status
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(b []byte) (int, error) {
	if a.status == 0 {
		a.status = http.StatusOK
	}
	n, err := a.ResponseWriter.Write(b)
	a.bytes += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// polled are the routes that health checks and scrapes call every second.
var polled = map[string]bool{"GET /healthz": true, "GET /readyz": true}

// Wrap observes next.
func (o *Observer) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		started := time.Now()
		served(r.Context())
		info := &request.Info{ID: requestID(r), Client: o.clients.Client(r)}
		ctx, cancel := context.WithTimeout(request.With(r.Context(), info), o.timeout)
		defer cancel()
		r = r.WithContext(ctx)
		a := &answer{ResponseWriter: w}
		h := w.Header()
		h.Set("X-Request-Id", info.ID)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store") // answers hold tokens and addresses
		defer func() {
			p := recover()
			err, _ := p.(error)
			abort := errors.Is(err, http.ErrAbortHandler)
			if p != nil && !abort {
				o.panicked(a, r, info, p)
			}
			o.record(a, r, info, time.Since(started))
			if abort {
				panic(p) // closes the connection without an answer
			}
		}()
		next.ServeHTTP(a, r)
	})
}

func (o *Observer) panicked(a *answer, r *http.Request, info *request.Info, p any) {
	o.panics.Inc()
	o.log.ErrorContext(r.Context(), "handler panicked", "request", info.ID, "panic", p, "stack", string(debug.Stack()))
	info.Code, info.Err = errs.CodeInternal, fmt.Errorf("panic: %v", p)
	if a.status == 0 {
		problem.Write(a, problem.New(r.Context(), http.StatusInternalServerError, "internal error"))
	}
}

func (o *Observer) record(a *answer, r *http.Request, info *request.Info, took time.Duration) {
	// The pattern, not the path: senders can invent any number of paths.
	route := r.Pattern
	if route == "" {
		route = "none"
	}
	status := a.status
	if status == 0 {
		status = http.StatusOK // net/http sends it for a handler that wrote nothing
	}
	o.requests.WithLabelValues(route, strconv.Itoa(status)).Inc()
	o.seconds.WithLabelValues(route).Observe(took.Seconds())
	if info.Code != "" {
		o.problems.WithLabelValues(route, string(info.Code)).Inc()
	}
	level := slog.LevelInfo
	switch {
	case status >= 500 && !polled[route]:
		level = slog.LevelWarn
	case polled[route]:
		level = slog.LevelDebug
	}
	attrs := []slog.Attr{
		slog.String("request", info.ID), slog.String("client", info.Client.String()),
		slog.String("method", methodOf(r)), slog.String("route", route), slog.Int("status", status),
		slog.Int64("bytes", a.bytes), slog.Duration("took", took),
	}
	if info.Code != "" {
		attrs = append(attrs, slog.String("code", string(info.Code)))
	}
	if info.Err != nil && !info.Code.ClientFault() {
		attrs = append(attrs, slog.String("err", info.Err.Error()))
	}
	o.log.LogAttrs(r.Context(), level, "request", attrs...)
}

// methodOf keeps invented methods out of the log.
func methodOf(r *http.Request) string {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch,
		http.MethodDelete, http.MethodOptions:
		return r.Method
	}
	return "other"
}

// givenID matches an id that a proxy may have given the request.
var givenID = regexp.MustCompile(`^[A-Za-z0-9._-]{8,64}$`)

func requestID(r *http.Request) string {
	if id := r.Header.Get("X-Request-Id"); givenID.MatchString(id) {
		return id
	}
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails: the program would end
	return hex.EncodeToString(b[:])
}
