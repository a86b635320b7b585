package wire

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
)

// dialTimeout is how long the network may take to connect.
const dialTimeout = 10 * time.Second

// lastSource bounds the loopback addresses to connect from, 127.0.0.1 and up:
// each has some 28,000 ports towards one server.
const lastSource = 64

// Login says where to connect and as whom.
type Login struct {
	// Address is host:port.
	Address string
	// Token is the session's, Assignment what led to this server, if anything did.
	Token      []byte
	Assignment string
}

// Dialer opens connections and keeps them alive until Close. Its methods may be
// called from any goroutine.
type Dialer struct {
	program string
	keeper  *keeper
	// source is the last number of the loopback address to connect from.
	source atomic.Int32
	dial   func(ctx context.Context, source netip.Addr, address string) (net.Conn, error)
}

// NewDialer returns a dialer for a program, whose name servers are told.
func NewDialer(program string) *Dialer {
	d := &Dialer{program: program, keeper: newKeeper(), dial: dialFrom}
	d.source.Store(1)
	return d
}

// Close ends the keeping alive; connections that are still open stay open.
func (d *Dialer) Close() { d.keeper.close() }

// Dial connects and logs in. What a server says instead of Welcome is a
// *GoodbyeError.
func (d *Dialer) Dial(ctx context.Context, l Login) (*Conn, error) {
	nc, err := d.connect(ctx, l.Address)
	if err != nil {
		return nil, err
	}
	c, err := introduce(ctx, nc, &chatv1.Hello{Protocol: protocol, Token: l.Token, Client: d.program, AssignmentId: l.Assignment})
	if err != nil {
		return nil, errors.Join(err, nc.Close())
	}
	d.keeper.add(c)
	return c, nil
}

// connect goes on to the next loopback address when one has no port left.
func (d *Dialer) connect(ctx context.Context, address string) (net.Conn, error) {
	for {
		n := d.source.Load()
		source := netip.Addr{} // the system chooses
		if n > 1 {
			source = netip.AddrFrom4([4]byte{127, 0, 0, byte(n)})
		}
		nc, err := d.dial(ctx, source, address)
		switch {
		case err == nil:
			return nc, nil
		case errors.Is(err, syscall.EADDRNOTAVAIL) && loopback(address) && n < lastSource:
			d.source.CompareAndSwap(n, n+1)
		case errors.Is(err, syscall.EMFILE):
			return nil, fmt.Errorf("this process may not open more files (see ulimit -n); run several with fewer clients each: %w", err)
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
	d := net.Dialer{Timeout: dialTimeout, KeepAlive: -1} // the keeper sees to it
	if source.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(source, 0))
		d.Control = portLate
	}
	return d.DialContext(ctx, "tcp", address)
}
