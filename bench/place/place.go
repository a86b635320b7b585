// Package place decides to which chat server each client of a measurement goes:
// to one that a gate assigns, or to given ones in turn.
package place

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/msrchat/msrchat/client"
	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
)

// Place is a server for one client. Its instance is empty where nobody named it.
type Place struct {
	Server *chatv1.Endpoint
	// Assignment is to be shown to the server.
	Assignment string
}

// Chooser finds a place for the i-th client, whose session's token is given. The
// instances to avoid are used only when there is nothing else. It may be called
// from any goroutine.
type Chooser func(ctx context.Context, i int, token []byte, avoid []string) (Place, error)

// Direct spreads the clients over addresses so that of the pairs (0,1), (2,3) …
// the same number is on each combination of two servers. tlsName is in their
// certificates; empty: no TLS.
func Direct(addresses []string, tlsName string) (Chooser, error) {
	if len(addresses) == 0 {
		return nil, errors.New("no server was given")
	}
	for _, a := range addresses {
		if _, _, err := net.SplitHostPort(a); err != nil {
			return nil, fmt.Errorf("the server %q is not HOST:PORT: %w", a, err)
		}
	}
	return func(_ context.Context, i int, _ []byte, _ []string) (Place, error) {
		at := i / 2 // the pair
		if i%2 != 0 {
			at /= len(addresses)
		}
		return Place{Server: &chatv1.Endpoint{
			Address: addresses[at%len(addresses)], TlsServerName: tlsName,
		}}, nil
	}, nil
}

const (
	// calls is how many connections to the gate are open at most.
	calls = 64
	// freshCalls is the same where each question has a connection of its own: as
	// many as fit beside 18,000 chat connections into 20,000 open files.
	freshCalls = 1024
)

// Option changes how the gate is asked.
type Option func(*http.Transport)

// FreshConnections makes a new connection for each question, as clients do that
// have been connected to a chat server for long.
func FreshConnections(t *http.Transport) {
	t.DisableKeepAlives, t.MaxConnsPerHost = true, freshCalls
}

// Gate asks the gate at a URL.
func Gate(url string, options ...Option) (Chooser, error) {
	transport := &http.Transport{MaxConnsPerHost: calls, MaxIdleConnsPerHost: calls, IdleConnTimeout: time.Minute}
	for _, o := range options {
		o(transport)
	}
	gate, err := client.NewGate(url, transport)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, _ int, token []byte, avoid []string) (Place, error) {
		a, err := gate.Assign(ctx, token, avoid)
		if err != nil {
			return Place{}, err
		}
		return Place{Server: &chatv1.Endpoint{
			Instance: a.Server.Instance, Address: a.Server.Address, TlsServerName: a.Server.TLSServerName,
		}, Assignment: a.ID}, nil
	}, nil
}
