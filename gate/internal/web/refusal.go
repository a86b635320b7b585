package web

import (
	"context"
	"net/http"

	"github.com/msrchat/msrchat/shared/retry"
)

// refusal holds an answer 429 back until release, and passes all others on. A program that
// tries passwords as fast as it is answered then costs the gate one look at its limits a
// second for each of its connections, instead of a thousand.
type refusal struct {
	http.ResponseWriter
	held bool
	body []byte // a problem, some hundred bytes
}

func (r *refusal) WriteHeader(status int) {
	if status == http.StatusTooManyRequests {
		r.held = true
		return
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *refusal) Write(b []byte) (int, error) {
	if r.held {
		r.body = append(r.body, b...)
		return len(b), nil
	}
	return r.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (r *refusal) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// release sends an answer that was held back after refusedWait, or when ctx ends.
func (r *refusal) release(ctx context.Context) {
	if !r.held {
		return
	}
	retry.Sleep(ctx, refusedWait)
	r.ResponseWriter.WriteHeader(http.StatusTooManyRequests)
	_, _ = r.ResponseWriter.Write(r.body) // on an error the client is gone
}
