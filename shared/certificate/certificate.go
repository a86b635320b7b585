// Package certificate serves a TLS certificate from files that may be replaced at any
// time: new handshakes use the new one, connections stay.
package certificate

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/msrchat/msrchat/shared/retry"
)

// lookEvery is how often the files are read. Certificates are renewed hours before they
// expire.
const lookEvery = 10 * time.Second

// Files are a certificate with its chain and its private key, both in PEM.
type Files struct{ Cert, Key string }

// Empty says that there are none.
func (f Files) Empty() bool { return f == Files{} }

// Validate says what is missing.
func (f Files) Validate() error {
	if (f.Cert == "") != (f.Key == "") {
		return errors.New("a certificate and its key belong together: give both files or neither")
	}
	return nil
}

// Roots reads the authorities to trust from a file in PEM; nil, the system's, for no file.
func Roots(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil //nolint:nilnil // crypto/tls takes nil for the system's
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the authorities to trust: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s has no certificate", file)
	}
	return roots, nil
}

// Certificate is what the files hold. Its methods may be called from any goroutine.
type Certificate struct {
	files   Files
	log     *slog.Logger
	current atomic.Pointer[loaded]
}

type loaded struct {
	pair tls.Certificate
	sum  [sha256.Size]byte
}

// Load reads the files. The error names the one that is wrong, and nothing of the key.
func Load(files Files, log *slog.Logger) (*Certificate, error) {
	c := &Certificate{files: files, log: log}
	if _, err := c.read(); err != nil {
		return nil, err
	}
	return c, nil
}

// read says whether the files had something new.
func (c *Certificate) read() (changed bool, err error) {
	cert, err := os.ReadFile(c.files.Cert)
	if err != nil {
		return false, fmt.Errorf("read the certificate: %w", err)
	}
	key, err := os.ReadFile(c.files.Key)
	if err != nil {
		return false, fmt.Errorf("read the certificate's key: %w", err)
	}
	sum := sha256.Sum256(append(cert[:len(cert):len(cert)], key...))
	if have := c.current.Load(); have != nil && have.sum == sum {
		return false, nil
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return false, fmt.Errorf("certificate %s with key %s: %w", c.files.Cert, c.files.Key, err)
	}
	c.current.Store(&loaded{pair, sum})
	return true, nil
}

// Run reads the files again and again until ctx ends. While they cannot be read, or do
// not belong together because only one was replaced yet, the last certificate stays.
func (c *Certificate) Run(ctx context.Context) error {
	failed := ""
	for retry.Sleep(ctx, lookEvery) {
		changed, err := c.read()
		switch {
		case err != nil && err.Error() != failed:
			failed = err.Error()
			c.log.Warn("certificate not reloaded", "err", err)
		case err == nil:
			failed = ""
		}
		if changed {
			c.log.Info("certificate reloaded", "until", c.Until())
		}
	}
	return nil
}

// Get is for tls.Config.GetCertificate.
func (c *Certificate) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return &c.current.Load().pair, nil
}

// Until is when the certificate expires.
func (c *Certificate) Until() time.Time {
	return c.current.Load().pair.Leaf.NotAfter
}
