// Package page is the live page for operators: one document, its style and its
// script, all embedded, and a stream of server-sent events with the data.
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

// policy allows the page its own files and nothing else. What servers report
// about themselves is shown as text and must not become a part of the page.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

const (
	// writeLimit drops a browser that does not read.
	writeLimit = 10 * time.Second
	// reconnectMS is what browsers wait when the stream ended.
	reconnectMS = 2000
)

// Watch calls show with the fleet now and whenever it changed, until ctx ends.
type Watch func(ctx context.Context, show func(*statusv1.FleetResponse) error) error

//go:embed page.html page.css page.js
var files embed.FS

// Register serves the page at /, its files, and its events at /fleet.
func Register(mux *http.ServeMux, watch Watch) {
	file := func(pattern, name, contentType string) {
		body, err := files.ReadFile(name)
		if err != nil {
			panic(err) // the compiler embedded it
		}
		mux.HandleFunc(pattern, func(w http.ResponseWriter, _ *http.Request) {
			headers(w, contentType)
			_, _ = w.Write(body) // on an error the browser is gone
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
	h.Set("Cache-Control", "no-store") // a new replica may have a new page
}

// events streams snapshots of the fleet, each an event with JSON. The last
// event of a stream that the replica ends is "end".
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
				format = "retry: " + strconv.Itoa(reconnectMS) + "\n\n" + format
			}
			if _, err := fmt.Fprintf(w, format, args...); err != nil {
				return err
			}
			return out.Flush()
		}
		err := watch(r.Context(), func(f *statusv1.FleetResponse) error {
			// JSON has no line ends, so one data line holds it.
			body, err := json.Marshal(snapshot.Of(f))
			if err != nil {
				return err
			}
			return write("data: %s\n\n", body)
		})
		switch {
		case err == nil || r.Context().Err() != nil:
		case begun:
			// On an error the browser is gone.
			_ = write("event: end\ndata: %s\n\n", strconv.Quote(errs.From(err).Message))
		default:
			refuse(w, err)
		}
	}
}

// refuse answers a request whose watch did not begin.
func refuse(w http.ResponseWriter, err error) {
	e := errs.From(err)
	headers(w, "text/plain; charset=utf-8")
	w.Header().Set("Retry-After", strconv.Itoa(max(int(e.RetryAfter.Seconds()), 1)))
	w.WriteHeader(http.StatusServiceUnavailable)
	_, _ = fmt.Fprintln(w, e.Message)
}
