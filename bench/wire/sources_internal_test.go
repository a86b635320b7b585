package wire

import (
	"context"
	"net"
	"net/netip"
	"syscall"
	"testing"
)

// When one loopback address has no port left, the next is used, and stays in use.
func TestSources(t *testing.T) {
	d := NewDialer("test")
	defer d.Close()
	var asked []string
	d.dial = func(_ context.Context, source netip.Addr, _ string) (net.Conn, error) {
		asked = append(asked, source.String())
		if len(asked) <= 2 {
			return nil, &net.OpError{Op: "dial", Err: syscall.EADDRNOTAVAIL}
		}
		return nil, syscall.ECONNREFUSED
	}
	for range 2 {
		if _, err := d.connect(t.Context(), "127.0.0.1:1"); err == nil {
			t.Fatal("connected")
		}
	}
	want := []string{"invalid IP", "127.0.0.2", "127.0.0.3", "127.0.0.3"}
	if len(asked) != len(want) {
		t.Fatalf("asked for %v, want %v", asked, want)
	}
	for i := range want {
		if asked[i] != want[i] {
			t.Errorf("asked for %v, want %v", asked, want)
		}
	}
	asked = nil
	if _, err := d.connect(t.Context(), "192.0.2.1:1"); err == nil || len(asked) != 1 {
		t.Errorf("another machine was dialled %d times, %v", len(asked), err)
	}
}

// A real connection from another loopback address.
func TestSourceAddress(t *testing.T) {
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
