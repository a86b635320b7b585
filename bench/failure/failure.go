// Package failure groups what went wrong, so that it can be counted.
package failure

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/wire"
)

// Kind puts an error of a connection, a request or a call into one of few groups.
func Kind(err error) string {
	var bye *wire.GoodbyeError
	var e *errs.Error
	switch {
	case errors.As(err, &bye):
		return "goodbye " + bye.Name()
	case errors.As(err, &e):
		return string(e.Code)
	case errors.Is(err, wire.ErrSilent), errors.Is(err, wire.ErrStuck):
		return "server silent"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET),
		errors.Is(err, syscall.EPIPE), errors.Is(err, net.ErrClosed):
		return "connection lost"
	}
	if s, ok := status.FromError(err); ok && s.Code() != codes.Unknown {
		return s.Code().String()
	}
	return err.Error()
}
