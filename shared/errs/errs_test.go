package errs_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/msrchat/msrchat/shared/errs"
)

var every = []errs.Code{
	errs.CodeInvalid, errs.CodeUnauthenticated, errs.CodeForbidden, errs.CodeNotFound,
	errs.CodeConflict, errs.CodeTooLarge, errs.CodeRateLimited, errs.CodeExhausted,
	errs.CodeUnavailable, errs.CodeInternal,
}

func TestEveryCodeSurvivesEveryProtocol(t *testing.T) {
	for _, code := range every {
		if got := errs.FromHTTPStatus(code.HTTPStatus()); got != code {
			t.Errorf("%s over HTTP came back as %s", code, got)
		}
		sent := errs.New(code, "text for %s", code).Retry(1500 * time.Millisecond)
		back := errs.From(errs.FromGRPC(errs.ToGRPC(fmt.Errorf("deeper: %w", sent))))
		if back.Code != code {
			t.Errorf("%s over gRPC came back as %s", code, back.Code)
		}
		if code != errs.CodeUnavailable && (back.Message != sent.Message || back.RetryAfter != sent.RetryAfter) {
			t.Errorf("%s over gRPC lost message or retry time: %+v", code, back)
		}
	}
}

func TestAForeignErrorIsNeverShown(t *testing.T) {
	secret := errors.New("dial db: password hunter2 refused")
	e := errs.From(secret)
	if e.Code != errs.CodeInternal || e.Message != "internal error" {
		t.Errorf("shown: %s %q", e.Code, e.Message)
	}
	if !errors.Is(e, secret) {
		t.Error("the cause is lost for the log")
	}
	if got := status.Convert(errs.ToGRPC(secret)).Message(); got != "internal error" {
		t.Errorf("gRPC shows %q", got)
	}
}

func TestALostCallIsUnavailable(t *testing.T) {
	for _, err := range []error{
		status.Error(codes.DeadlineExceeded, "late"), status.Error(codes.Unavailable, "gone"),
		context.Canceled, io.EOF,
	} {
		if got := errs.CodeOf(errs.FromGRPC(err)); got != errs.CodeUnavailable {
			t.Errorf("%v: got %s, want unavailable", err, got)
		}
	}
}

func TestWrapHidesItsCauseFromTheMessageOnly(t *testing.T) {
	e := errs.Wrap(errs.CodeConflict, io.ErrUnexpectedEOF, "the name is taken").In("name")
	if e.Message != "the name is taken" || e.Field != "name" || !errors.Is(e, io.ErrUnexpectedEOF) {
		t.Errorf("got %+v", e)
	}
	if errs.Known("from-the-future") != errs.CodeInternal {
		t.Error("an unknown code must become internal")
	}
}
