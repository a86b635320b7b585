package certificate_test

import (
	"context"
	"crypto/x509"
	"log/slog"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/msrchat/msrchat/shared/certificate"
	"github.com/msrchat/msrchat/shared/certificate/certtest"
)

// A replaced certificate is served soon; while the files do not belong together, the
// last one is.
func TestReload(t *testing.T) {
	t.Parallel()
	ca := certtest.New(t)
	files := ca.Files("chat.example.org")
	synctest.Test(t, func(t *testing.T) {
		c, err := certificate.Load(files, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _ = c.Run(ctx) }()
		defer cancel()
		served := func() *x509.Certificate {
			pair, err := c.Get(nil)
			if err != nil {
				t.Fatal(err)
			}
			return pair.Leaf
		}
		first := served()
		oldKey, err := os.ReadFile(files.Key)
		if err != nil {
			t.Fatal(err)
		}
		ca.Files("chat.example.org")
		newKey, err := os.ReadFile(files.Key)
		if err != nil {
			t.Fatal(err)
		}
		replace := func(key []byte) {
			if err := os.WriteFile(files.Key, key, 0o600); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute) // in the bubble, where it takes no time
		}
		replace(oldKey)
		if !served().Equal(first) {
			t.Error("a certificate is served whose key is not there yet")
		}
		replace(newKey)
		if served().Equal(first) {
			t.Error("the replaced certificate is not served")
		}
		if !c.Until().After(time.Now()) {
			t.Errorf("it expires at %v", c.Until())
		}
	})
}

func TestWrongFiles(t *testing.T) {
	t.Parallel()
	ca := certtest.New(t)
	good, other := ca.Files("a"), ca.Files("b")
	for name, files := range map[string]certificate.Files{
		"no certificate": {Cert: good.Cert + "x", Key: good.Key},
		"no key":         {Cert: good.Cert, Key: good.Key + "x"},
		"another's key":  {Cert: good.Cert, Key: other.Key},
		"the wrong way":  {Cert: good.Key, Key: good.Cert},
	} {
		_, err := certificate.Load(files, slog.New(slog.DiscardHandler))
		if err == nil || strings.Contains(err.Error(), "PRIVATE") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if (certificate.Files{Cert: "x"}).Validate() == nil || good.Validate() != nil {
		t.Error("half a pair of files is taken, or a whole one is not")
	}
}
