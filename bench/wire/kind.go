package wire

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"

	"github.com/msrchat/msrchat/shared/errs"
)

// Kind puts what went wrong with a connection or a request into one of few
// groups, to be counted.
func Kind(err error) string {
	var bye *GoodbyeError
	var e *errs.Error
	switch {
	case errors.As(err, &bye):
		return "goodbye " + Code(bye.Goodbye)
	case errors.As(err, &e):
		return string(e.Code)
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET),
		errors.Is(err, syscall.EPIPE), errors.Is(err, net.ErrClosed):
		return "connection lost"
	}
	return err.Error()
}
