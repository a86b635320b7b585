package errs_test

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/msrchat/msrchat/shared/errs"
)

// mayPass has every code, and whether the same request may succeed later.
var mayPass = map[errs.Code]bool{
	errs.CodeInvalid: false, errs.CodeUnauthenticated: false, errs.CodeForbidden: false,
	errs.CodeNotFound: false, errs.CodeConflict: false, errs.CodeTooLarge: false,
	errs.CodeRateLimited: true, errs.CodeExhausted: true, errs.CodeUnavailable: true, errs.CodeInternal: true,
}

// The source is read, so that a new code cannot be forgotten here or in the table.
func TestEveryCodeHasARow(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "errs.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(spec.Names[0].Name, "Code") {
			return true
		}
		text, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		found++
		code := errs.Code(text)
		if errs.Known(code) != code {
			t.Errorf("%s has no row in the table", code)
		}
		if want, ok := mayPass[code]; !ok || code.MayPass() != want {
			t.Errorf("%s may pass: %v, want %v (listed %v)", code, code.MayPass(), want, ok)
		}
		return true
	})
	if found != len(mayPass) {
		t.Errorf("found %d codes in the source, want %d", found, len(mayPass))
	}
}

func TestWhatMayPassIsReadFromAnyError(t *testing.T) {
	for _, c := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{io.EOF, true}, // foreign, so internal
		{errs.New("from-the-future", "a code of a newer peer"), true},
		{fmt.Errorf("deeper: %w", errs.New(errs.CodeForbidden, "no")), false},
		{fmt.Errorf("deeper: %w", errs.New(errs.CodeExhausted, "full").Retry(time.Second)), true},
	} {
		if got := errs.MayPass(c.err); got != c.want {
			t.Errorf("%v may pass: %v, want %v", c.err, got, c.want)
		}
	}
}

func TestEveryCodeSurvivesEveryProtocol(t *testing.T) {
	for code := range mayPass {
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
