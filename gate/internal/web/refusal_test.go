package web

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// TestARefusalTakesASecond shows that nobody is answered 429 more often than once a second on
// a connection, that all other answers come at once, that one who leaves is not waited for, and
// that nothing is held back once there are many connections.
func TestARefusalTakesASecond(t *testing.T) {
	ask := func(t *testing.T, status int, open int64, leave time.Duration) (time.Duration, *httptest.ResponseRecorder) {
		t.Helper()
		c := NewConnections(10, prometheus.NewPedanticRegistry())
		c.open.Store(open)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if leave > 0 {
			defer time.AfterFunc(leave, cancel).Stop()
		}
		r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/", http.NoBody)
		w := httptest.NewRecorder()
		began := time.Now()
		c.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, "because 原因")
			_, _ = io.WriteString(w, " of this")
		})).ServeHTTP(w, r)
		return time.Since(began), w
	}
	for _, c := range []struct {
		name   string
		status int
		open   int64
		leave  time.Duration
		want   time.Duration
	}{
		{"refused", http.StatusTooManyRequests, 5, 0, time.Second},
		{"made", http.StatusCreated, 5, 0, 0},
		{"wrong", http.StatusUnauthorized, 5, 0, 0},
		{"full", http.StatusServiceUnavailable, 5, 0, 0},
		{"who leaves", http.StatusTooManyRequests, 5, 300 * time.Millisecond, 300 * time.Millisecond},
		{"many connections", http.StatusTooManyRequests, 6, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				took, w := ask(t, c.status, c.open, c.leave)
				if took != c.want {
					t.Errorf("answered after %v, want %v", took, c.want)
				}
				after := w.Header().Get("Retry-After")
				if w.Code != c.status || w.Body.String() != "because 原因 of this" || after != "7" {
					t.Errorf("answered %d %q %v", w.Code, w.Body, w.Header())
				}
			})
		})
	}
}
