// Package admin is what every service shows its operators: health, readiness,
// metrics and log lines.
package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/msrchat/msrchat/shared/errs"
)

const (
	// readyTimeout is below the 3 s that the jobs' http checks wait, so that a
	// check reads our reason and not its own timeout.
	readyTimeout = 2 * time.Second
	// headerTimeout and the header limit stop a client that sends its header
	// slowly or without end.
	headerTimeout  = 5 * time.Second
	maxHeaderBytes = 16 << 10
	// serveGrace is how long requests in flight get at the end of Serve.
	serveGrace = 3 * time.Second
)

// NewRegistry returns a registry that has the Go runtime's and the process's
// own metrics.
func NewRegistry() *prometheus.Registry {
	reg := prometheus.NewRegistry()
	reg.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return reg
}

// Handler serves /healthz (200 as long as the process answers), /readyz and
// /metrics.
//
// ready says whether the service can do its work; nil means that it always can.
// It is called for each request, with a deadline, by any number of goroutines at
// once. An error is answered with 503 and, if it is an *errs.Error, its message.
func Handler(reg *prometheus.Registry, ready func(ctx context.Context) error) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
		defer cancel()
		if ready != nil {
			if err := ready(ctx); err != nil {
				answer(w, http.StatusServiceUnavailable, "not ready: "+errs.From(err).Message)
				return
			}
		}
		answer(w, http.StatusOK, "ok")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{Registry: reg}))
	return mux
}

// Profiles adds Go's profiles to a handler, under /debug/pprof. Taking one costs
// CPU time and shows what no user should see, so they are for a port that only
// operators reach, and off by default.
func Profiles(h http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", h)
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}

func answer(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text+"\n") // on an error the client is gone
}

// Serve serves h on l until ctx ends, then gives requests in flight three
// seconds. It closes l and returns nil after a clean end.
func Serve(ctx context.Context, l net.Listener, h http.Handler) error {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxHeaderBytes,
		// The server's own log lines are about broken requests of clients.
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve http on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), serveGrace)
	defer cancel()
	if err := srv.Shutdown(stop); err != nil {
		return errors.Join(fmt.Errorf("stop http on %s: %w", l.Addr(), err), srv.Close())
	}
	return nil
}
