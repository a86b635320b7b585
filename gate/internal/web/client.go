package web

import (
	"net/http"
	"net/netip"
	"strings"
)

// ClientFinder tells which address to hold responsible for a request.
//
// That is the peer of the connection, unless the peer is a trusted proxy: then
// it is the last address in X-Forwarded-For that is no trusted proxy. What
// stands before it was written by that client and proves nothing.
type ClientFinder struct {
	trusted []netip.Prefix
}

// NewClientFinder returns a finder that trusts the proxies in the networks.
func NewClientFinder(trusted []netip.Prefix) ClientFinder { return ClientFinder{trusted} }

// maxForwarded bounds how far back a chain of proxies is followed.
const maxForwarded = 16

// Client returns the address, unmapped and without a zone; the zero Addr when
// the peer's address cannot be read.
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
			return client // a proxy that we trust wrote no address: blame it
		}
		if client = addr; !f.trusts(client) {
			return client
		}
	}
	return client
}

// parseForwarded reads one entry, which some proxies write with a port.
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
