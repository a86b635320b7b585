package failure_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/wire"

	"github.com/msrchat/msrchat/bench/failure"
)

func TestWrappedErrorsFallIntoFewKinds(t *testing.T) {
	full := &chatv1.Goodbye{Code: chatv1.GoodbyeCode_GOODBYE_CODE_FULL}
	for want, err := range map[string]error{
		"goodbye full":       &wire.GoodbyeError{Goodbye: full},
		"not_found":          errs.New(errs.CodeNotFound, "nobody"),
		"server silent":      wire.ErrSilent,
		"connection refused": syscall.ECONNREFUSED,
		"timeout":            context.DeadlineExceeded,
		"connection lost":    io.ErrUnexpectedEOF,
		"Unavailable":        status.Error(codes.Unavailable, "away"),
		"as written":         errors.New("as written"),
	} {
		wrapped := err
		if want != "as written" {
			wrapped = fmt.Errorf("connect to %s: %w", "127.0.0.1:7000", err)
		}
		if got := failure.Kind(wrapped); got != want {
			t.Errorf("%v is of kind %q, want %q", wrapped, got, want)
		}
	}
}
