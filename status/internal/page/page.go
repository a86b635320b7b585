// Package page is the live page for operators: one document, its style and its
// script, all built in, and a stream of server-sent events that feeds it.
package page

import (
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	statusv1 "github.com/msrchat/msrchat/proto/msrchat/status/v1"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/status/internal/snapshot"
)

// policy allows the page what it brings along and nothing else. What servers say
// of themselves ends up in the page, and must not become a part of it.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

const (
	// writeLimit drops a browser that does not read.
	writeLimit = 10 * time.Second
	// comeBack is what browsers wait when the stream ended, in milliseconds.
	comeBack = 2000
)

// Watch calls show with the fleet now and whenever it changed, until ctx ends.
type Watch func(ctx context.Context, show func(*statusv1.FleetResponse) error) error

//go:embed page.html page.css page.js
var files embed.FS

// Register serves the page at / and what belongs to it.
func Register(mux *http.ServeMux, watch Watch) {
	file := func(pattern, name, contentType string) {
		body, err := files.ReadFile(name)
		if err != nil {
			panic(err) // the compiler embedded it
		}
		mux.HandleFunc(pattern, func(w http.ResponseWriter, _ *http.Request) {
			headers(w, contentType)
			_, _ = w.Write(body) // the asker left: nobody to tell
		})
	}
	file("GET /{$}", "page.html", "text/html; charset=utf-8")
	file("GET /page.css", "page.css", "text/css; charset=utf-8")
	file("GET /page.js", "page.js", "text/javascript; charset=utf-8")
	mux.HandleFunc("GET /fleet", events(watch))
}

func headers(w http.ResponseWriter, contentType string) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store") // a new replica brings a new page
}

// events streams pictures of the fleet, each an event with JSON. The last event
// of a stream that the replica ends is "end".
func events(watch Watch) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		out := http.NewResponseController(w)
		begun := false
		write := func(format string, args ...any) error {
			if err := out.SetWriteDeadline(time.Now().Add(writeLimit)); err != nil {
				return err
			}
			if !begun {
				begun = true
				headers(w, "text/event-stream")
				format = "retry: " + strconv.Itoa(comeBack) + "\n\n" + format
			}
			if _, err := fmt.Fprintf(w, format, args...); err != nil {
				return err
			}
			return out.Flush()
		}
		err := watch(r.Context(), func(f *statusv1.FleetResponse) error {
			// JSON has no line ends of its own, so one data line holds it.
			body, err := json.Marshal(snapshot.Of(f))
			if err != nil {
				return err
			}
			return write("data: %s\n\n", body)
		})
		switch {
		case err == nil || r.Context().Err() != nil:
		case begun:
			_ = write("event: end\ndata: %s\n\n", strconv.Quote(errs.From(err).Message)) // whoever left reads it not
		default:
			refuse(w, err)
		}
	}
}

// refuse answers a watch that did not begin.
func refuse(w http.ResponseWriter, err error) {
	e := errs.From(err)
	headers(w, "text/plain; charset=utf-8")
	w.Header().Set("Retry-After", strconv.Itoa(max(int(e.RetryAfter.Seconds()), 1)))
	w.WriteHeader(http.StatusServiceUnavailable)
	_, _ = fmt.Fprintln(w, e.Message)
}
