package dial

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
)

func TestTheNextLoopbackAddressIsUsedWhenOneHasNoPortLeft(t *testing.T) {
	var asked []string
	s := newSources(func(_ context.Context, source netip.Addr, _ string) (net.Conn, error) {
		asked = append(asked, source.String())
		if len(asked) <= 2 {
			return nil, &net.OpError{Op: "dial", Err: syscall.EADDRNOTAVAIL}
		}
		return nil, syscall.ECONNREFUSED
	})
	for range 2 {
		if _, err := s.connect(t.Context(), "127.0.0.1:1"); err == nil {
			t.Fatal("connected")
		}
	}
	if want := []string{"invalid IP", "127.0.0.2", "127.0.0.3", "127.0.0.3"}; !slices.Equal(asked, want) {
		t.Errorf("asked for %v, want %v", asked, want)
	}
	asked = nil
	if _, err := s.connect(t.Context(), "192.0.2.1:1"); err == nil || len(asked) != 1 {
		t.Errorf("another machine was dialled %d times, %v", len(asked), err)
	}
}

func TestAConnectionComesFromAnotherLoopbackAddress(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	nc, err := dialFrom(t.Context(), netip.MustParseAddr("127.0.0.3"), l.Addr().String())
	if err != nil {
		t.Skipf("not run: this system has one loopback address only: %v", err)
	}
	defer nc.Close()
	if from := nc.LocalAddr().(*net.TCPAddr).IP.String(); from != "127.0.0.3" {
		t.Errorf("connected from %s", from)
	}
}
