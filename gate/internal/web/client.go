package web

import (
	"net/http"
	"net/netip"
	"strings"
)

// ClientFinder finds the client's address of a request.
//
// That is the peer of the connection, unless the peer is a trusted proxy. Then
// it is the last address in X-Forwarded-For that is not a trusted proxy;
// addresses before it were written by that client and prove nothing.
type ClientFinder struct {
	trusted []netip.Prefix
}

// NewClientFinder returns a finder that trusts the proxies in the networks.
func NewClientFinder(trusted []netip.Prefix) ClientFinder { return ClientFinder{trusted} }

// maxForwarded bounds how long a chain of proxies may be.
const maxForwarded = 16

// Client returns the address, unmapped and without a zone; the zero Addr if the
// peer's address cannot be parsed.
func (f ClientFinder) Client(r *http.Request) netip.Addr {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	client := peer.Addr().Unmap().WithZone("")
	if !f.trusts(client) {
		return client
	}
	// Several headers are one list; proxies append.
	rest := strings.Join(r.Header.Values("X-Forwarded-For"), ",")
	for range maxForwarded {
		if rest == "" {
			return client
		}
		last := rest
		if i := strings.LastIndexByte(rest, ','); i >= 0 {
			rest, last = rest[:i], rest[i+1:]
		} else {
			rest = ""
		}
		addr, err := parseForwarded(strings.TrimSpace(last))
		if err != nil {
			return client // a trusted proxy wrote no address: it counts as the client
		}
		if client = addr; !f.trusts(client) {
			return client
		}
	}
	return client
}

// parseForwarded parses one entry, which some proxies write with a port.
func parseForwarded(s string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(s)
	if err != nil {
		var withPort netip.AddrPort
		if withPort, err = netip.ParseAddrPort(s); err != nil {
			return netip.Addr{}, err
		}
		addr = withPort.Addr()
	}
	return addr.Unmap().WithZone(""), nil
}

func (f ClientFinder) trusts(a netip.Addr) bool {
	for _, p := range f.trusted {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
