// Package certtest makes certificates for tests.
package certtest

import (
	"crypto/x509"
	"testing"

	"github.com/msrchat/msrchat/shared/certificate"
	"github.com/msrchat/msrchat/shared/certificate/authority"
)

// CA signs certificates. It is for the test's goroutine.
type CA struct {
	t         testing.TB
	authority *authority.Authority
	// Roots has the CA's certificate, File has it in PEM.
	Roots *x509.CertPool
	File  string
}

// New makes a CA that ends with the test.
func New(t testing.TB) *CA {
	t.Helper()
	a, err := authority.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	roots, err := certificate.Roots(a.File)
	if err != nil {
		t.Fatal(err)
	}
	return &CA{t, a, roots, a.File}
}

// Files writes a certificate for a name, over that of an earlier call for the same name.
func (a *CA) Files(name string) certificate.Files {
	a.t.Helper()
	f, err := a.authority.Issue(name)
	if err != nil {
		a.t.Fatal(err)
	}
	return f
}
