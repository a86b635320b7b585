package link_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"testing"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"

	"github.com/msrchat/msrchat/client/internal/link"
	"github.com/msrchat/msrchat/shared/frame"
)

// serve accepts one connection and hands it to the test.
func serve(t *testing.T, conf *tls.Config, handle func(conn net.Conn)) *chatv1.Endpoint {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		if conf != nil {
			conn = tls.Server(conn, conf)
		}
		handle(conn)
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		<-done
	})
	return &chatv1.Endpoint{Address: listener.Addr().String()}
}

func write(t *testing.T, conn net.Conn, f *chatv1.ServerFrame) {
	t.Helper()
	wire, err := frame.Append(nil, f)
	if err != nil {
		t.Error(err)
	}
	if _, err := conn.Write(wire); err != nil {
		t.Logf("write: %v", err) // the client may be gone by now
	}
}

func hello(t *testing.T, conn net.Conn) *chatv1.Hello {
	t.Helper()
	var f chatv1.ClientFrame
	if _, err := frame.Read(conn, 1<<16, nil, &f); err != nil {
		t.Logf("read: %v", err)
	}
	return f.GetHello()
}

func welcome(heartbeat time.Duration) *chatv1.ServerFrame {
	return &chatv1.ServerFrame{Body: &chatv1.ServerFrame_Welcome{Welcome: &chatv1.Welcome{
		UserId: 1, HeartbeatMs: uint32(heartbeat / time.Millisecond),
	}}}
}

func dial(t *testing.T, to *chatv1.Endpoint, base *tls.Config) (*link.Link, error) {
	t.Helper()
	l, err := link.Dial(t.Context(), to, &chatv1.Hello{Protocol: link.Protocol, Token: []byte("secret")}, base)
	if l != nil {
		t.Cleanup(l.Close)
	}
	return l, err
}

// end waits for a link's end.
func end(t *testing.T, l *link.Link) error {
	t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		select {
		case _, ok := <-l.Frames():
			if !ok {
				return l.Err()
			}
		case <-timeout:
			t.Fatal("the link does not end")
		}
	}
}

func TestFramesComeUntilGoodbye(t *testing.T) {
	looked := make(chan struct{})
	to := serve(t, nil, func(conn net.Conn) {
		if h := hello(t, conn); string(h.GetToken()) != "secret" {
			t.Errorf("hello: %v", h)
		}
		write(t, conn, welcome(time.Minute))
		write(t, conn, &chatv1.ServerFrame{Body: &chatv1.ServerFrame_Pong{}})
		write(t, conn, &chatv1.ServerFrame{RequestId: 7})
		<-looked
		write(t, conn, &chatv1.ServerFrame{Body: &chatv1.ServerFrame_Goodbye{Goodbye: &chatv1.Goodbye{Text: "bye"}}})
		_, _ = io.Copy(io.Discard, conn)
	})
	l, err := dial(t, to, nil)
	if err != nil {
		close(looked)
		t.Fatal(err)
	}
	if l.Err() != nil || l.Heartbeat != time.Minute {
		t.Errorf("alive: %v, heartbeat %v", l.Err(), l.Heartbeat)
	}
	close(looked)
	if f := <-l.Frames(); f.GetRequestId() != 7 {
		t.Errorf("first frame: %v", f)
	}
	var bye *link.GoodbyeError
	if err := end(t, l); !errors.As(err, &bye) || bye.Error() != "the server said goodbye: bye" {
		t.Errorf("ended with %v", err)
	}
	if l.Send(&chatv1.ClientFrame{}) {
		t.Error("an ended link took a frame")
	}
}

func TestAServerThatDoesNotKeepToTheProtocol(t *testing.T) {
	for name, c := range map[string]struct {
		first []byte
		want  error
	}{
		"nothing":     {nil, io.EOF},
		"half a size": {[]byte{0, 0}, io.ErrUnexpectedEOF},
		"too large":   {[]byte{0xff, 0, 0, 0}, frame.ErrTooLarge},
		"empty":       {[]byte{0, 0, 0, 0}, frame.ErrEmpty},
		"not welcome": {mustFrame(&chatv1.ServerFrame{Body: &chatv1.ServerFrame_Pong{}, RequestId: 1}), link.ErrProtocol},
		"http":        {[]byte("HTTP/1.1 400 Bad Request\r\n\r\n"), frame.ErrTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			to := serve(t, nil, func(conn net.Conn) {
				hello(t, conn)
				_, _ = conn.Write(c.first)
			})
			if _, err := dial(t, to, nil); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func mustFrame(f *chatv1.ServerFrame) []byte {
	wire, err := frame.Append(nil, f)
	if err != nil {
		panic(err)
	}
	return wire
}

func TestBytesThatDripAreNoSignOfLife(t *testing.T) {
	to := serve(t, nil, func(conn net.Conn) {
		hello(t, conn)
		write(t, conn, welcome(50*time.Millisecond))
		go func() { _, _ = io.Copy(io.Discard, conn) }()
		if _, err := conn.Write([]byte{0, 0, 1, 0}); err != nil {
			t.Error(err)
		}
		for range 1000 {
			if _, err := conn.Write([]byte{1}); err != nil {
				return
			}
			time.Sleep(10 * time.Millisecond) // the drip
		}
	})
	l, err := dial(t, to, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := end(t, l); !errors.Is(err, link.ErrSilent) {
		t.Errorf("ended with %v", err)
	}
}

func TestAServerThatDoesNotReadIsLeft(t *testing.T) {
	release := make(chan struct{})
	to := serve(t, nil, func(conn net.Conn) {
		hello(t, conn)
		write(t, conn, welcome(time.Minute))
		<-release
	})
	defer close(release)
	l, err := dial(t, to, nil)
	if err != nil {
		t.Fatal(err)
	}
	f := &chatv1.ClientFrame{Body: &chatv1.ClientFrame_Send{Send: &chatv1.Send{Text: string(make([]byte, 16<<10))}}}
	n := 0
	for l.Send(f) {
		if n++; n > 100_000 {
			t.Fatal("the queue has no end")
		}
	}
	if err := l.Err(); !errors.Is(err, link.ErrStuck) {
		t.Errorf("ended with %v", err)
	}
}

func TestACancelledDialEnds(t *testing.T) {
	release := make(chan struct{})
	to := serve(t, nil, func(net.Conn) { <-release })
	defer close(release)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := link.Dial(ctx, to, &chatv1.Hello{}, nil); err == nil {
		t.Error("no error")
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestTLSChecksTheAssignedName(t *testing.T) {
	conf, roots := certificate(t, "chat.example")
	for name, ok := range map[string]bool{"chat.example": true, "other.example": false} {
		to := serve(t, conf, func(conn net.Conn) {
			if hello(t, conn) == nil {
				return
			}
			write(t, conn, welcome(time.Minute))
			_, _ = io.Copy(io.Discard, conn)
		})
		to.TlsServerName = name
		l, err := dial(t, to, &tls.Config{RootCAs: roots})
		if (err == nil) != ok {
			t.Errorf("server of chat.example as %s: %v", name, err)
		}
		if l != nil {
			l.Close()
		}
	}
	to := serve(t, conf, func(conn net.Conn) { hello(t, conn) })
	to.TlsServerName = "chat.example"
	var unknown x509.UnknownAuthorityError
	if _, err := dial(t, to, nil); !errors.As(err, &unknown) {
		t.Errorf("an unknown authority: %v", err)
	}
}

func certificate(t *testing.T, name string) (*tls.Config, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, roots
}
