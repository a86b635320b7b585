package wire_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/frame"
	"github.com/msrchat/msrchat/shared/wire"
)

// serverName is what the servers' certificate is for.
const serverName = "chat.example"

// certificate is made once: a server's configuration and the roots for clients.
var certificate = sync.OnceValues(func() (*tls.Config, *x509.CertPool) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: serverName}, DNSNames: []string{serverName},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, roots
})

// transport is how a client reaches a server.
type transport struct {
	name   string
	secure bool
	keeper *wire.Keeper
}

// each runs a test over TCP and over TLS, and with pings by a timer and by a
// keeper.
func each(t *testing.T, test func(t *testing.T, tr transport)) {
	t.Helper()
	keeper := wire.NewKeeper()
	t.Cleanup(keeper.Close)
	for _, tr := range []transport{{name: "TCP", keeper: keeper}, {name: "TLS", secure: true}} {
		t.Run(tr.name, func(t *testing.T) { test(t, tr) })
	}
}

// peer is the server's side of one connection.
type peer struct {
	net.Conn
	t *testing.T
}

// serve accepts one connection and runs a script on it.
func (tr transport) serve(t *testing.T, script func(p *peer)) *chatv1.Endpoint {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		nc, err := l.Accept()
		if err != nil {
			return
		}
		defer nc.Close()
		if tr.secure {
			conf, _ := certificate()
			nc = tls.Server(nc, conf)
		}
		script(&peer{nc, t})
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	to := &chatv1.Endpoint{Address: l.Addr().String()}
	if tr.secure {
		to.TlsServerName = serverName
	}
	return to
}

// dialer trusts the servers' certificate.
func (tr transport) dialer() *wire.Dialer {
	_, roots := certificate()
	return &wire.Dialer{TLS: &tls.Config{RootCAs: roots}, Keeper: tr.keeper}
}

var login = wire.Login{Token: []byte("secret"), Program: "wire test", Assignment: "a-1"}

func (tr transport) tryDial(t *testing.T, ctx context.Context, to *chatv1.Endpoint) (*wire.Conn, error) {
	t.Helper()
	c, _, err := tr.dialer().Dial(ctx, to, login)
	if c != nil {
		t.Cleanup(c.Close)
	}
	return c, err
}

func (tr transport) dial(t *testing.T, to *chatv1.Endpoint) *wire.Conn {
	t.Helper()
	c, err := tr.tryDial(t, t.Context(), to)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// read returns the next frame, nil when the client has ended the connection.
func (p *peer) read() *chatv1.ClientFrame {
	f := &chatv1.ClientFrame{}
	if _, err := frame.Read(p, 1<<20, nil, f); err != nil {
		return nil
	}
	return f
}

// hello expects Hello and answers it.
func (p *peer) hello(heartbeat time.Duration) {
	p.t.Helper()
	f := p.read()
	if f.GetHello() == nil {
		p.t.Errorf("the client began with %v", f)
	}
	p.write(welcome(heartbeat))
}

// write writes frames at once.
func (p *peer) write(frames ...*chatv1.ServerFrame) { p.raw(encode(frames...)) }

// raw writes bytes; the client may be gone by now.
func (p *peer) raw(b []byte) {
	if _, err := p.Write(b); err != nil {
		p.t.Logf("write to the client: %v", err)
	}
}

// untilClosed reads until the client has ended the connection.
func (p *peer) untilClosed() {
	buf := make([]byte, 1024)
	for {
		if _, err := p.Read(buf); err != nil {
			return
		}
	}
}

func encode(frames ...*chatv1.ServerFrame) (out []byte) {
	for _, f := range frames {
		var err error
		if out, err = frame.Append(out, f); err != nil {
			panic(err)
		}
	}
	return out
}

func welcome(heartbeat time.Duration) *chatv1.ServerFrame {
	return &chatv1.ServerFrame{RequestId: 1, Body: &chatv1.ServerFrame_Welcome{Welcome: &chatv1.Welcome{
		UserId: 7, Instance: "chat-1", HeartbeatMs: uint32(heartbeat.Milliseconds()), Revision: 1,
		Limits: &chatv1.Limits{MaxFrameBytes: 32 << 10},
	}}}
}

func goodbye(code chatv1.GoodbyeCode) *chatv1.ServerFrame {
	return &chatv1.ServerFrame{Body: &chatv1.ServerFrame_Goodbye{Goodbye: &chatv1.Goodbye{
		Code: code, Text: "so long", Reconnect: true, ReconnectAfterMs: 250,
	}}}
}

func event(seq uint64, text string) *chatv1.ServerFrame {
	return &chatv1.ServerFrame{Body: &chatv1.ServerFrame_Event{Event: &chatv1.Event{
		ConversationId: 1, Seq: seq, Kind: 1, Body: []byte(text),
	}}}
}

func pong() *chatv1.ServerFrame {
	return &chatv1.ServerFrame{Body: &chatv1.ServerFrame_Pong{Pong: &chatv1.Pong{}}}
}

// collector keeps what arrives.
type collector struct {
	frames  []*chatv1.ServerFrame
	frame   func()
	drained func()
}

func (c *collector) Frame(f *chatv1.ServerFrame) {
	c.frames = append(c.frames, &chatv1.ServerFrame{RequestId: f.GetRequestId(), Body: f.GetBody()})
	if c.frame != nil {
		c.frame()
	}
}

func (c *collector) Drained() {
	if c.drained != nil {
		c.drained()
	}
}
