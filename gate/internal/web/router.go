package web

import (
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/msrchat/msrchat/gate/internal/problem"
)

// Router is an http.ServeMux that answers unknown paths and wrong methods with
// problems instead of plain text.
//
// Other requests go through Bodies first and then through Concurrency, so that a
// client that is slow to send a body uses no slot.
type Router struct {
	*http.ServeMux
	routed http.Handler
}

// NewRouter returns a router without routes; see Bodies for bodyWait.
func NewRouter(bodyWait time.Duration, bound *Concurrency) Router {
	mux := http.NewServeMux()
	return Router{mux, Bodies(bodyWait, bound.Wrap(mux))}
}

// ServeHTTP implements http.Handler.
func (m Router) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	handler, pattern := m.Handler(r)
	// net/http would answer a path such as //v1/me with a redirect in HTML.
	clean := path.Clean(r.URL.Path) == r.URL.Path
	if pattern != "" && clean {
		r.Pattern = pattern // for the metrics, also if Bodies refuses
		m.routed.ServeHTTP(w, r)
		return
	}
	if r.ContentLength != 0 {
		// Or net/http would wait for the rest of the body before it answers.
		w.Header().Set("Connection", "close")
	}
	// The mux's handler knows which of the two it is, and the methods.
	probe := &probe{header: http.Header{}}
	if clean {
		handler.ServeHTTP(probe, r)
	}
	if probe.status != http.StatusMethodNotAllowed {
		problem.Write(w, problem.New(r.Context(), http.StatusNotFound,
			"there is nothing at this path; /openapi.json lists what there is"))
		return
	}
	allowed := probe.header.Get("Allow")
	w.Header().Set("Allow", allowed)
	problem.Write(w, problem.New(r.Context(), http.StatusMethodNotAllowed,
		"this path does not have that method, only "+strings.ReplaceAll(allowed, ", ", " and ")))
}

// probe is an http.ResponseWriter that keeps only the header and the status.
type probe struct {
	header http.Header
	status int
}

func (p *probe) Header() http.Header         { return p.header }
func (p *probe) Write(b []byte) (int, error) { return len(b), nil }
func (p *probe) WriteHeader(status int)      { p.status = status }
