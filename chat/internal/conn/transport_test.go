package conn_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/certificate/certtest"
	"github.com/msrchat/msrchat/shared/testenv"

	"github.com/msrchat/msrchat/chat/internal/conn"
)

// serverName is in the certificate of these tests.
const serverName = "chat.example.org"

// secured returns the two sides' configurations.
func secured(t testing.TB) (server, client *tls.Config) {
	t.Helper()
	ca := certtest.New(t)
	files := ca.Files(serverName)
	pair, err := tls.LoadX509KeyPair(files.Cert, files.Key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13},
		&tls.Config{ServerName: serverName, RootCAs: ca.Roots, MinVersion: tls.VersionTLS13}
}

// tcp is the two ends of a TCP connection.
func tcp(t testing.TB) (ours, theirs net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if ours, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if theirs, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return ours, theirs
}

// transports run a test over TCP, over TLS on TCP, and over TLS on pipes, where every
// read and write may block.
func transports(t *testing.T, test func(t *testing.T, change func(*world, *conn.Options))) {
	t.Helper()
	mine, theirs := secured(t)
	overTLS := func(connect func(testing.TB) (net.Conn, net.Conn)) func(*world, *conn.Options) {
		return func(w *world, o *conn.Options) {
			o.TLS = mine
			w.connect = func(t testing.TB) (net.Conn, net.Conn) {
				t.Helper()
				a, b := connect(t)
				return tls.Client(a, theirs), b
			}
		}
	}
	pipe := func(testing.TB) (net.Conn, net.Conn) { return net.Pipe() }
	for name, change := range map[string]func(*world, *conn.Options){
		"tcp":           func(w *world, _ *conn.Options) { w.connect = tcp },
		"tls":           overTLS(tcp),
		"tls on a pipe": overTLS(pipe),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, change)
		})
	}
}

// Frames arrive whole, in order and once, however they are cut, and so do the answers.
func TestTransportsCarryFrames(t *testing.T) {
	t.Parallel()
	transports(t, func(t *testing.T, change func(*world, *conn.Options)) {
		t.Helper()
		w := newWorld(t, change, func(w *world, o *conn.Options) { w.events, o.Heartbeat = page(40), 4*time.Second })
		c := w.login(t, 1)
		var burst []byte
		for n := range 300 {
			f := ping()
			f.RequestId = uint64(n + 1)
			burst = append(burst, encoded(t, f)...)
		}
		long := text(9, 1, strings.Repeat("你", 4000))
		go func() { // in one piece, then in pieces of all sizes
			_, _ = c.nc.Write(burst)
			for b, n := burst, 1; len(b) > 0; n++ {
				n = min(n, len(b))
				_, _ = c.nc.Write(b[:n])
				b = b[n:]
			}
			_, _ = c.nc.Write(encoded(t, long))
		}()
		for range 2 {
			for n := range uint64(300) {
				if f := c.read(); f.GetPong() == nil || f.GetRequestId() != n+1 {
					t.Fatalf("answer %d is %v", n+1, f)
				}
			}
		}
		testenv.Until(t, "the long message arrives", func() bool {
			sent := w.sent()
			return len(sent) == 1 && sent[0].text == string(long.GetSend().GetBody())
		})
		// Two pages, one of them asked for before the other is read.
		for id := range uint64(2) {
			c.write(&chatv1.ClientFrame{RequestId: id + 1, Body: &chatv1.ClientFrame_History{
				History: &chatv1.History{ConversationId: 1},
			}})
		}
		for id := range uint64(2) {
			f := c.read()
			if n := len(f.GetHistoryPage().GetEvents()); n != 16 || f.GetRequestId() != id+1 {
				t.Fatalf("page %d has %d events", f.GetRequestId(), n)
			}
		}
		time.Sleep(1200 * time.Millisecond) // the reader hands over to another, which is what is tested
		c.pong()
		w.Connections()[0].Bye(&chatv1.Goodbye{Code: chatv1.GoodbyeCode_GOODBYE_CODE_DRAINING})
		if g := c.goodbye(); g.GetCode() != chatv1.GoodbyeCode_GOODBYE_CODE_DRAINING {
			t.Errorf("got %v", g)
		}
	})
}

// What is held for clients that stop in the middle of a frame, or read nothing, is
// counted, and is given back.
func TestTransportsCountWhatIsHeld(t *testing.T) {
	t.Parallel()
	transports(t, func(t *testing.T, change func(*world, *conn.Options)) {
		t.Helper()
		reg := prometheus.NewRegistry()
		w := newWorld(t, change, func(w *world, o *conn.Options) {
			w.events, o.Registerer, o.WriteTimeout = page(16), reg, 500*time.Millisecond
		})
		held := func() float64 { return value(t, reg, "msrchat_chat_held_bytes", "") }
		half := w.login(t, 1)
		whole := encoded(t, text(1, 1, strings.Repeat("你", 4000)))
		if _, err := half.nc.Write(whole[:6<<10]); err != nil {
			t.Fatal(err)
		}
		testenv.Until(t, "half a frame is counted", func() bool { return held() > 0 })
		if _, err := half.nc.Write(whole[6<<10:]); err != nil {
			t.Fatal(err)
		}
		testenv.Until(t, "it is given back", func() bool { return len(w.sent()) == 1 && held() < 16<<10 })
		silent := w.login(t, 2)
		var asks []byte
		for id := range uint64(64) { // more than any kernel buffers
			asks = append(asks, encoded(t, &chatv1.ClientFrame{RequestId: id + 1, Body: &chatv1.ClientFrame_History{
				History: &chatv1.History{ConversationId: 1},
			}})...)
		}
		if _, err := silent.nc.Write(asks); err != nil {
			t.Fatal(err)
		}
		testenv.Until(t, "pages that are not read are counted", func() bool { return held() > 64<<10 })
		if n := held(); n > 2*(256+32)<<10 {
			t.Errorf("%v bytes are held for a client that reads nothing", n)
		}
		half.pong()
		testenv.Until(t, "the silent one is dropped", func() bool { return w.hub.Len() == 1 })
		_ = half.nc.Close()
		testenv.Until(t, "all is given back", func() bool { return held() == 0 && w.hub.Len() == 0 })
	})
}

// together keeps what is written until the next read.
type together struct {
	net.Conn
	kept []byte
}

func (c *together) Write(b []byte) (int, error) {
	c.kept = append(c.kept, b...)
	return len(b), nil
}

func (c *together) Read(b []byte) (int, error) {
	if _, err := c.Conn.Write(c.kept); err != nil {
		return 0, err
	}
	c.kept = nil
	return c.Conn.Read(b)
}

// What a client sends behind its last message of the handshake, in the same packet, is
// read like what comes later.
func TestFramesThatComeWithTheHandshake(t *testing.T) {
	t.Parallel()
	mine, theirs := secured(t)
	w := newWorld(t, func(w *world, o *conn.Options) { o.TLS, w.connect = mine, tcp })
	const clients, messages = 20, 5
	for range clients { // what is cut off at a wrong place looks right by chance
		secret := tls.Client(&together{Conn: w.dial(t).nc}, theirs)
		if err := secret.Handshake(); err != nil {
			t.Fatal(err)
		}
		c := &client{t, secret}
		c.write(hello(1))
		for range messages {
			c.write(text(1, 1, strings.Repeat("你", 1000)))
		}
		c.write(ping())
		for f := c.read(); f.GetPong() == nil; f = c.read() {
			if g := f.GetGoodbye(); g != nil {
				t.Fatal(g)
			}
		}
	}
	if n := len(w.sent()); n != clients*messages {
		t.Errorf("%d of %d messages came in", n, clients*messages)
	}
}

// A client that does not speak TLS is turned away, as is one whose first record is long,
// and neither leaves anything behind.
func TestWhoDoesNotSpeakTLS(t *testing.T) {
	t.Parallel()
	mine, theirs := secured(t)
	w := newWorld(t, func(w *world, o *conn.Options) { o.TLS, w.connect = mine, tcp })
	plain := w.dial(t)
	plain.write(hello(1))
	if b, err := io.ReadAll(io.LimitReader(plain.nc, 1<<10)); err == nil && len(b) > 64 {
		t.Errorf("an answer in plain text: %q", b)
	}
	theirs.DynamicRecordSizingDisabled = true
	long := &client{t, tls.Client(w.dial(t).nc, theirs)}
	if _, err := long.nc.Write(append(encoded(t, hello(1)), make([]byte, 10<<10)...)); err != nil {
		t.Fatal(err)
	}
	if g := long.goodbye(); g.GetCode() != chatv1.GoodbyeCode_GOODBYE_CODE_PROTOCOL {
		t.Errorf("got %v", g)
	}
}

// Records that are none end the connection and nothing else.
func FuzzRecords(f *testing.F) {
	f.Add([]byte{0x17, 3, 3, 0, 1, 0})
	f.Add([]byte{0x17, 3, 3, 0xff, 0xff})
	f.Add([]byte{0x16, 3, 3, 0, 5, 24, 0, 0, 1, 1})
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	mine, theirs := secured(f)
	w := newWorld(f, func(w *world, o *conn.Options) { o.TLS, w.connect = mine, tcp })
	f.Fuzz(func(t *testing.T, b []byte) {
		c := w.dial(t)
		in := &client{t, tls.Client(c.nc, theirs)}
		in.write(hello(2))
		if in.read().GetWelcome() == nil {
			t.Fatal("not admitted")
		}
		if _, err := c.nc.Write(b); err != nil { // beside TLS
			t.Fatal(err)
		}
		_ = c.nc.(*net.TCPConn).CloseWrite()
		for {
			_, err := in.next()
			if err == nil {
				continue
			}
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				t.Fatal("the connection goes on")
			}
			break
		}
		_ = c.nc.Close()
		testenv.Until(t, "it has ended", func() bool { return w.hub.Len() == 0 })
	})
}
