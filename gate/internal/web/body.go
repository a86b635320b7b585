package web

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
	"unicode/utf8"

	"github.com/msrchat/msrchat/gate/internal/problem"
)

// MaxBody is the largest body in bytes. The largest useful one, a registration,
// is under 4 KiB.
const MaxBody = 64 << 10

// Bodies reads the whole body before it calls next, so that size, speed and
// encoding are checked in one place and operations have the body in memory. A
// body over MaxBody is 413, one without a type 415, one that takes longer than wait
// 408.
func Bodies(wait time.Duration, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength == 0 || r.Body == nil || r.Body == http.NoBody {
			next.ServeHTTP(w, r)
			return
		}
		body, bad := read(w, r, wait)
		if bad != nil {
			// The rest of the body must not be read as the next request.
			w.Header().Set("Connection", "close")
			problem.Write(w, bad)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		r.ContentLength = int64(len(body))
		next.ServeHTTP(w, r)
	})
}

func read(w http.ResponseWriter, r *http.Request, wait time.Duration) ([]byte, *problem.Problem) {
	ctx := r.Context()
	tooLarge := func() *problem.Problem {
		return problem.New(ctx, http.StatusRequestEntityTooLarge,
			fmt.Sprintf("the body is larger than %d bytes", MaxBody))
	}
	if r.ContentLength > MaxBody {
		return nil, tooLarge()
	}
	if r.Header.Get("Content-Type") == "" {
		return nil, problem.New(ctx, http.StatusUnsupportedMediaType,
			"the header Content-Type is missing; it has to be application/json")
	}
	control := http.NewResponseController(w)
	if err := control.SetReadDeadline(time.Now().Add(wait)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return nil, problem.New(ctx, http.StatusBadRequest, "the connection is gone")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	var over *http.MaxBytesError
	var network net.Error
	switch {
	case errors.As(err, &over):
		return nil, tooLarge()
	case errors.As(err, &network) && network.Timeout():
		return nil, problem.New(ctx, http.StatusRequestTimeout, "the body came too slowly")
	case err != nil:
		return nil, problem.New(ctx, http.StatusBadRequest, "the body ended early or is not framed as HTTP requires")
	case !utf8.Valid(body):
		// encoding/json would silently replace the bytes.
		return nil, problem.New(ctx, http.StatusBadRequest, "the body is not valid UTF-8")
	}
	// A deadline that stays set would end the request's context when it passes.
	if err := control.SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return nil, problem.New(ctx, http.StatusBadRequest, "the connection is gone")
	}
	return body, nil
}
