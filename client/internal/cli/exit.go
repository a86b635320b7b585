package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/client/internal/plain"
	"github.com/msrchat/msrchat/shared/errs"
)

// The exit codes; --help lists them.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitLoggedOut   = 3
	exitRefused     = 4
	exitUnreachable = 5
	exitInterrupted = 130 // 128 + SIGINT, as shells have it
)

// usageError is a wrong command line.
type usageError struct{ message string }

func (e *usageError) Error() string { return e.message }

func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// endError gives an error another exit code, or a hint what to do next.
type endError struct {
	error
	code int    // 0: by the error
	hint string // "" : by the code
}

func (e *endError) Unwrap() error { return e.error }

// finish prints an error and returns the exit code.
func (p *program) finish(ctx context.Context, err error) int {
	if err == nil {
		return exitOK
	}
	code, hint := exitCode(ctx, err), ""
	var end *endError
	if errors.As(err, &end) {
		hint = end.hint
		if end.code != 0 {
			code = end.code
		}
	}
	if hint == "" {
		hint = p.hint(code)
	}
	message := client.Describe(err)
	if code == exitInterrupted {
		message = "interrupted"
	}
	fmt.Fprintln(p.Stderr, "msrchat:", plain.Line(message))
	if hint != "" {
		fmt.Fprintln(p.Stderr, hint)
	}
	return code
}

func exitCode(ctx context.Context, err error) int {
	var wrong *usageError
	switch {
	case errors.As(err, &wrong):
		return exitUsage
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.Is(err, context.DeadlineExceeded):
		return exitUnreachable
	}
	switch errs.CodeOf(err) {
	case errs.CodeUnauthenticated:
		return exitLoggedOut
	case errs.CodeInvalid, errs.CodeForbidden, errs.CodeNotFound, errs.CodeConflict, errs.CodeTooLarge:
		return exitRefused
	case errs.CodeUnavailable, errs.CodeExhausted, errs.CodeRateLimited:
		return exitUnreachable
	}
	return exitFailed
}

// hint says what to do next.
func (p *program) hint(code int) string {
	if code != exitLoggedOut {
		return ""
	}
	return "log in:   " + p.command() + " login --name NAME\nregister: " + p.command() + " code EMAIL"
}

// command is how the next command of the same profile begins.
func (p *program) command() string {
	if p.profile.Name == "" || p.profile.Name == "default" {
		return "msrchat"
	}
	return "msrchat --profile " + p.profile.Name
}

// tlsConfig trusts the certificates of a file, or the system's for none.
func tlsConfig(caFile string) (*tls.Config, error) {
	if caFile == "" {
		return nil, nil //nolint:nilnil // the system's roots are nil to crypto/tls, too
	}
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, usagef("read --ca-file: %v", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, usagef("--ca-file %s has no certificate", caFile)
	}
	return &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, nil
}

func transport(caFile string) (http.RoundTripper, error) {
	conf, err := tlsConfig(caFile)
	if err != nil || conf == nil {
		return nil, err
	}
	t, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return nil, errors.New("the default transport is not the standard one")
	}
	t = t.Clone()
	t.TLSClientConfig = conf
	return t, nil
}
