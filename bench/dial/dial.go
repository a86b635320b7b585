// Package dial makes dialers for tens of thousands of connections from one
// process: one goroutine pings for all, and loopback addresses are changed when
// one has no port left.
package dial

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/msrchat/msrchat/shared/wire"
)

const (
	// dialTimeout and helloTimeout are longer than the client library's: a server
	// that is slow is measured, not left.
	dialTimeout  = 10 * time.Second
	helloTimeout = 30 * time.Second
)

// lastSource bounds the loopback addresses to connect from, 127.0.0.1 and up:
// each has some 28,000 ports towards one server.
const lastSource = 64

// New returns a dialer that trusts roots (nil: the system's). Close its Keeper when
// nobody is connected any more.
func New(roots *x509.CertPool) *wire.Dialer {
	return &wire.Dialer{
		TLS:     &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13},
		Connect: newSources(dialFrom).connect, Keeper: wire.NewKeeper(),
		DialTimeout: dialTimeout, HelloTimeout: helloTimeout,
	}
}

// sources are the loopback addresses to connect from.
type sources struct {
	// last is the last number of the address in use; of 127.0.0.1 the system
	// chooses it.
	last atomic.Int32
	dial func(ctx context.Context, source netip.Addr, address string) (net.Conn, error)
}

func newSources(dial func(context.Context, netip.Addr, string) (net.Conn, error)) *sources {
	s := &sources{dial: dial}
	s.last.Store(1)
	return s
}

// connect tries the next loopback address when one has no port left. It may be
// called from any goroutine.
func (s *sources) connect(ctx context.Context, address string) (net.Conn, error) {
	for {
		n := s.last.Load()
		source := netip.Addr{} // the system chooses
		if n > 1 {
			source = netip.AddrFrom4([4]byte{127, 0, 0, byte(n)})
		}
		nc, err := s.dial(ctx, source, address)
		switch {
		case err == nil:
			return nc, nil
		case errors.Is(err, syscall.EADDRNOTAVAIL) && loopback(address) && n < lastSource:
			s.last.CompareAndSwap(n, n+1)
		case errors.Is(err, syscall.EMFILE):
			return nil, fmt.Errorf("this process may not open more files (see ulimit -n);"+
				" run several with fewer clients each: %w", err)
		default:
			return nil, err
		}
	}
}

func loopback(address string) bool {
	a, err := netip.ParseAddrPort(address)
	return err == nil && a.Addr().IsLoopback() && a.Addr().Is4()
}

func dialFrom(ctx context.Context, source netip.Addr, address string) (net.Conn, error) {
	d := net.Dialer{KeepAlive: -1} // the heartbeat finds a server that is gone
	if source.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(source, 0))
		d.Control = portLate
	}
	return d.DialContext(ctx, "tcp", address)
}
