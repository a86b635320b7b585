package wire

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
)

// Login says who connects.
type Login struct {
	// Token is the session's.
	Token []byte
	// Program is the program and its version, for operators.
	Program string
	// Assignment is the one that led to this server, or empty.
	Assignment string
}

// Dialer opens connections. The zero value is ready for use; the fields stay as
// they are from the first Dial on. Dial may be called from any goroutine.
type Dialer struct {
	// TLS is the configuration for servers that have a name to verify; nil: the
	// system's roots.
	TLS *tls.Config
	// Connect opens the TCP connection; nil: as net.Dialer does.
	Connect func(ctx context.Context, address string) (net.Conn, error)
	// Keeper pings the connections; nil: each has a timer of its own.
	Keeper *Keeper
	// DialTimeout bounds TCP and TLS, HelloTimeout the wait for Welcome; 0: five
	// and ten seconds. The context bounds both.
	DialTimeout, HelloTimeout time.Duration

	once    sync.Once // sets secured at the first Dial that needs it
	secured *tls.Config
}

// Dial connects to a server and logs in. The error is a *GoodbyeError where the
// server said why it does not let the client in.
//
// Welcome is returned beside the connection, so that who holds many connections
// need not hold it.
func (d *Dialer) Dial(ctx context.Context, to *chatv1.Endpoint, who Login) (*Conn, *chatv1.Welcome, error) {
	nc, err := d.open(ctx, to)
	if err != nil {
		return nil, nil, fmt.Errorf("connect to %s: %w", to.GetAddress(), err)
	}
	c := &Conn{nc: nc, maxFrame: maxFrame}
	w, err := c.introduce(ctx, who, cmp.Or(d.HelloTimeout, helloTimeout))
	if err != nil {
		_ = socket(nc).Close()
		return nil, nil, fmt.Errorf("introduce to %s: %w", to.GetAddress(), err)
	}
	c.heartbeat = heartbeat(w)
	if limit := w.GetLimits().GetMaxFrameBytes(); limit > 0 {
		c.maxFrame = int32(min(limit, maxFrame))
	}
	c.keepAlive(d.Keeper)
	return c, w, nil
}

// open connects, by TLS where the server has a name.
func (d *Dialer) open(ctx context.Context, to *chatv1.Endpoint) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(d.DialTimeout, dialTimeout))
	defer cancel()
	connect := d.Connect
	if connect == nil {
		connect = connectTCP
	}
	nc, err := connect(ctx, to.GetAddress())
	if err != nil || to.GetTlsServerName() == "" {
		return nc, err
	}
	secured := tls.Client(nc, d.tlsFor(to.GetTlsServerName()))
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = nc.Close()
		return nil, err
	}
	return secured, nil
}

// curves are the key exchanges that a client offers. A hybrid one, against computers that
// may exist some day, has keys of 1.2 KiB, which cost the server 3 KiB for as long as the
// connection lasts: crypto/tls keeps the buffers that the first message needed.
var curves = []tls.CurveID{tls.X25519, tls.CurveP256}

// tlsFor is the configuration for a server with a name. Sessions are resumed, also at
// another server with that name: when a server died all its clients come at once, and a
// full handshake would cost each side a signature.
func (d *Dialer) tlsFor(name string) *tls.Config {
	d.once.Do(func() {
		d.secured = &tls.Config{}
		if d.TLS != nil {
			d.secured = d.TLS.Clone()
		}
		d.secured.MinVersion = tls.VersionTLS13
		if d.secured.CurvePreferences == nil {
			d.secured.CurvePreferences = curves
		}
		if d.secured.ClientSessionCache == nil {
			d.secured.ClientSessionCache = tls.NewLRUClientSessionCache(0)
		}
	})
	conf := d.secured.Clone()
	conf.ServerName = name
	return conf
}

func connectTCP(ctx context.Context, address string) (net.Conn, error) {
	d := net.Dialer{KeepAlive: -1} // the heartbeat finds a server that is gone
	return d.DialContext(ctx, "tcp", address)
}

// socket is the TCP connection under TLS. It is closed instead of the TLS
// connection, which would wait up to five seconds for a server that reads nothing.
func socket(nc net.Conn) net.Conn {
	if secured, ok := nc.(*tls.Conn); ok {
		return secured.NetConn()
	}
	return nc
}

// helloID is the request id of Hello.
const helloID = 1

// introduce sends Hello and waits for the answer.
func (c *Conn) introduce(ctx context.Context, who Login, limit time.Duration) (*chatv1.Welcome, error) {
	hello := &chatv1.Hello{
		Protocol: Protocol, Token: who.Token, Client: who.Program, AssignmentId: who.Assignment,
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var w *chatv1.Welcome
	err := c.exchange(ctx, &chatv1.ClientFrame{
		RequestId: helloID, Body: &chatv1.ClientFrame_Hello{Hello: hello},
	}, func(f *chatv1.ServerFrame) (bool, error) {
		if w = f.GetWelcome(); w == nil {
			return false, fmt.Errorf("%w: it began with %T", ErrProtocol, f.GetBody())
		}
		// A server of revision 0 answers with request id 0.
		if id := f.GetRequestId(); id != helloID && (id != 0 || w.GetRevision() > 0) {
			return false, fmt.Errorf("%w: Welcome answers request %d", ErrProtocol, id)
		}
		return true, nil
	})
	return w, err
}

// heartbeat is the server's, within reason.
func heartbeat(w *chatv1.Welcome) time.Duration {
	if w.GetHeartbeatMs() == 0 {
		return defaultHeartbeat
	}
	return min(max(time.Duration(w.GetHeartbeatMs())*time.Millisecond, minHeartbeat), maxHeartbeat)
}
