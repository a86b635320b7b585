// Package errs is the one error type that crosses a boundary: a code that
// programs act on and a message that is safe to show to the caller.
//
// Every other error is internal: at a boundary it becomes CodeInternal with a
// fixed text, and its own text goes to the log only.
package errs

import (
	"errors"
	"fmt"
	"time"
)

// Code says what kind of failure it is, the same on every protocol.
type Code string

// The codes, and what a caller that gets one should do.
const (
	// CodeInvalid: the request is wrong; change it.
	CodeInvalid Code = "invalid"
	// CodeUnauthenticated: no session, or no longer; log in.
	CodeUnauthenticated Code = "unauthenticated"
	// CodeForbidden: this user may not; do not repeat.
	CodeForbidden Code = "forbidden"
	// CodeNotFound: there is no such thing.
	CodeNotFound Code = "not_found"
	// CodeConflict: something with that name or id exists and differs.
	CodeConflict Code = "conflict"
	// CodeTooLarge: over a limit that the text names.
	CodeTooLarge Code = "too_large"
	// CodeRateLimited: too many requests; try again after RetryAfter.
	CodeRateLimited Code = "rate_limited"
	// CodeExhausted: no room at present; try again after RetryAfter.
	CodeExhausted Code = "exhausted"
	// CodeUnavailable: a backend or a peer is down; try again. The outcome of a
	// write that was answered so is unknown.
	CodeUnavailable Code = "unavailable"
	// CodeInternal: a fault of ours, of which the log says more; try again.
	CodeInternal Code = "internal"
)

// Error is a failure that may be shown. Values are immutable.
type Error struct {
	Code Code
	// Message is for a person; it holds no secret and no rejected value.
	Message string
	// RetryAfter is how long to wait before trying again; 0 means not known.
	RetryAfter time.Duration
	// Field names the request field at fault, if one is.
	Field string

	cause error
}

// New returns an error with a code and a formatted, safe message. A %w verb keeps
// the cause for errors.Is and the log, and its text is part of the message.
func New(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Message: err.Error(), cause: errors.Unwrap(err)}
}

// Wrap hides cause behind a safe message. The cause stays visible to errors.Is
// and in Error(), which is for logs.
func Wrap(code Code, cause error, message string) *Error {
	return &Error{Code: code, Message: message, cause: cause}
}

// Retry returns a copy that says when to try again.
func (e *Error) Retry(after time.Duration) *Error {
	c := *e
	c.RetryAfter = after
	return &c
}

// In returns a copy that names the request field at fault.
func (e *Error) In(field string) *Error {
	c := *e
	c.Field = field
	return &c
}

// Error is the text for logs: the message and, if it says more, the cause.
func (e *Error) Error() string {
	if e.cause == nil {
		return e.Message
	}
	if text := e.cause.Error(); text != e.Message {
		return e.Message + ": " + text
	}
	return e.Message
}

// Unwrap returns the hidden cause.
func (e *Error) Unwrap() error { return e.cause }

// From returns err as an *Error: itself if it is one, else an internal error
// with a fixed text that has err as its cause. From(nil) is nil.
func From(err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Code: CodeInternal, Message: "internal error", cause: err}
}

// CodeOf returns the code that err carries, CodeInternal for a foreign error,
// and the empty code for nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	return From(err).Code
}

// MayPass says that what failed with err may succeed later, unchanged; see
// Code.MayPass. A foreign error is internal and may pass; nil did not fail.
func MayPass(err error) bool { return err != nil && CodeOf(err).MayPass() }
