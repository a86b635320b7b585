package wire_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/frame"
	"github.com/msrchat/msrchat/shared/testenv"
	"github.com/msrchat/msrchat/shared/wire"
)

const draining = chatv1.GoodbyeCode_GOODBYE_CODE_DRAINING

func TestFramesComeUntilGoodbye(t *testing.T) {
	each(t, func(t *testing.T, tr transport) {
		t.Helper()
		long := strings.Repeat("x", 100_000) // more than is read at a time
		to := tr.serve(t, func(p *peer) {
			f := p.read()
			h := f.GetHello()
			if f.GetRequestId() == 0 || h.GetProtocol() != wire.Protocol || string(h.GetToken()) != "secret" ||
				h.GetClient() != "wire test" || h.GetAssignmentId() != "a-1" {
				t.Errorf("the client began with %v", f)
			}
			// At once: what follows Welcome must not get lost.
			p.write(welcome(time.Minute), event(1, "a"), event(2, long), pong(), event(3, "c"))
			for _, b := range encode(event(4, "slow"), goodbye(draining)) {
				p.raw([]byte{b})
			}
			p.untilClosed()
		})
		c, w, err := tr.dialer().Dial(t.Context(), to, login)
		if err != nil {
			t.Fatal(err)
		}
		if w.GetUserId() != 7 || c.Heartbeat() != time.Minute || c.Address() != to.GetAddress() {
			t.Errorf("welcome %v, heartbeat %v, address %s", w, c.Heartbeat(), c.Address())
		}
		var got collector
		err = c.Serve(&got)
		var bye *wire.GoodbyeError
		if !errors.As(err, &bye) || bye.Name() != "draining" || bye.After() != 250*time.Millisecond {
			t.Errorf("Serve ended with %v", err)
		}
		var seqs []uint64
		size := 0
		for _, f := range got.frames {
			if f.GetEvent() != nil {
				seqs = append(seqs, f.GetEvent().GetSeq())
				size += len(f.GetEvent().GetBody())
			}
		}
		if !slices.Equal(seqs, []uint64{1, 2, 3, 4}) || size != 1+len(long)+1+4 || len(got.frames) != 5 {
			t.Errorf("got %d frames, events %v with %d bytes of text", len(got.frames), seqs, size)
		}
	})
}

func TestABurstIsAnsweredWhenAllOfItWasHandedOut(t *testing.T) {
	each(t, func(t *testing.T, tr transport) {
		t.Helper()
		to := tr.serve(t, func(p *peer) {
			p.hello(time.Minute)
			p.write(event(1, "a"), event(2, "b"))
			if f := p.read(); f.GetRequestId() != 42 {
				t.Errorf("the client sent %v", f)
			}
			p.write(goodbye(draining))
			p.untilClosed()
		})
		c := tr.dial(t, to)
		got := &collector{}
		got.drained = func() {
			if len(got.frames) < 2 {
				return // the burst came in two
			}
			request, err := c.Append(nil, listRequest(42))
			if err == nil {
				err = c.Write(request)
			}
			if err != nil {
				t.Error(err)
			}
		}
		if err := c.Serve(got); !errors.As(err, new(*wire.GoodbyeError)) {
			t.Errorf("Serve ended with %v", err)
		}
	})
}

func listRequest(id uint64) *chatv1.ClientFrame {
	return &chatv1.ClientFrame{RequestId: id, Body: &chatv1.ClientFrame_ListConversations{}}
}

func TestACallIsAnsweredBetweenPushes(t *testing.T) {
	each(t, func(t *testing.T, tr transport) {
		t.Helper()
		to := tr.serve(t, func(p *peer) {
			p.hello(time.Minute)
			p.write(event(1, "a push"), &chatv1.ServerFrame{
				RequestId: p.read().GetRequestId(),
				Body:      &chatv1.ServerFrame_Conversation{Conversation: &chatv1.Conversation{Id: 5}},
			})
			p.write(&chatv1.ServerFrame{
				RequestId: p.read().GetRequestId(),
				Body: &chatv1.ServerFrame_Failure{Failure: &chatv1.Failure{
					Code: "rate_limited", Text: "too often", RetryAfterMs: 1500, Field: "peer_name",
				}},
			})
			p.read()
			p.write(goodbye(draining))
			p.untilClosed()
		})
		c := tr.dial(t, to)
		if f, err := c.Call(t.Context(), listRequest(9)); err != nil || f.GetConversation().GetId() != 5 {
			t.Fatalf("got %v, %v", f, err)
		}
		_, err := c.Call(t.Context(), listRequest(10))
		var e *errs.Error
		if !errors.As(err, &e) || e.Code != errs.CodeRateLimited || e.Field != "peer_name" ||
			e.RetryAfter != 1500*time.Millisecond {
			t.Errorf("a failure is %+v", err)
		}
		if _, err = c.Call(t.Context(), listRequest(11)); !errors.As(err, new(*wire.GoodbyeError)) {
			t.Errorf("a goodbye instead of an answer is %v", err)
		}
		if err := c.Serve(&collector{}); !errors.As(err, new(*wire.GoodbyeError)) {
			t.Errorf("behind it Serve ended with %v", err)
		}
	})
}

func TestOnlyWelcomeLetsIn(t *testing.T) {
	answer := func(id uint64, revision uint32) []byte {
		return encode(&chatv1.ServerFrame{RequestId: id, Body: &chatv1.ServerFrame_Welcome{
			Welcome: &chatv1.Welcome{UserId: 7, Revision: revision},
		}})
	}
	whole := answer(1, 1)
	each(t, func(t *testing.T, tr transport) {
		t.Helper()
		for name, c := range map[string]struct {
			answer []byte
			want   error
		}{
			"the id of Hello":                 {whole, nil},
			"revision 0 answers with id 0":    {answer(0, 0), nil},
			"revision 0 answers with the id":  {answer(1, 0), nil},
			"id 0 of a later revision":        {answer(0, 1), wire.ErrProtocol},
			"another request's id":            {answer(2, 1), wire.ErrProtocol},
			"a push":                          {encode(event(1, "a")), wire.ErrProtocol},
			"a Pong":                          {encode(pong()), wire.ErrProtocol},
			"nothing":                         {nil, io.ErrUnexpectedEOF},
			"half a header":                   {[]byte{0, 0}, io.ErrUnexpectedEOF},
			"a frame that is cut":             {whole[:len(whole)-3], io.ErrUnexpectedEOF},
			"a frame that is too large":       {[]byte{0xff, 0, 0, 0}, frame.ErrTooLarge},
			"an empty frame":                  {[]byte{0, 0, 0, 0}, frame.ErrEmpty},
			"the answer of another protocol":  {[]byte("HTTP/1.1 400 Bad Request\r\n\r\n"), frame.ErrTooLarge},
			"bytes that are no protobuf":      {[]byte{0, 0, 0, 1, 0xff}, errAny},
			"a Goodbye, which is told as one": {encode(goodbye(draining)), errGoodbye},
		} {
			t.Run(name, func(t *testing.T) {
				to := tr.serve(t, func(p *peer) {
					p.read()
					p.raw(c.answer)
				})
				_, err := tr.tryDial(t, t.Context(), to)
				switch {
				case errors.Is(c.want, errAny) && err != nil:
				case errors.Is(c.want, errGoodbye) && errors.As(err, new(*wire.GoodbyeError)):
				case !errors.Is(err, c.want):
					t.Errorf("got %v, want %v", err, c.want)
				}
			})
		}
	})
}

// Stand for any error, and for a *wire.GoodbyeError.
var errAny, errGoodbye = errors.New("any"), errors.New("goodbye")

func TestAServerThatDoesNotAnswerHoldsNobodyUp(t *testing.T) {
	each(t, func(t *testing.T, tr transport) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		to := tr.serve(t, func(p *peer) {
			p.read()
			cancel()
			p.untilClosed()
		})
		if _, err := tr.tryDial(t, ctx, to); !errors.Is(err, context.Canceled) {
			t.Errorf("a cancelled Dial gave %v", err)
		}
		to = tr.serve(t, (*peer).untilClosed)
		d := tr.dialer()
		d.HelloTimeout = 30 * time.Millisecond
		var timeout net.Error
		if _, _, err := d.Dial(t.Context(), to, login); !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("without an answer Dial gave %v", err)
		}
	})
	// Not even TLS is answered.
	to := transport{}.serve(t, (*peer).untilClosed)
	to.TlsServerName = serverName
	d := wire.Dialer{DialTimeout: 30 * time.Millisecond}
	if _, _, err := d.Dial(t.Context(), to, login); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without a handshake Dial gave %v", err)
	}
}

func TestTheServersNameIsVerified(t *testing.T) {
	tr := transport{secure: true}
	_, roots := certificate()
	script := func(p *peer) {
		if p.read() != nil {
			t.Error("a client logged in to a server that it cannot trust")
		}
	}
	to := tr.serve(t, script)
	to.TlsServerName = "other.example"
	var name x509.HostnameError
	if _, err := tr.tryDial(t, t.Context(), to); !errors.As(err, &name) {
		t.Errorf("another name: %v", err)
	}
	to = tr.serve(t, script)
	var authority x509.UnknownAuthorityError
	if _, _, err := new(wire.Dialer).Dial(t.Context(), to, login); !errors.As(err, &authority) {
		t.Errorf("an unknown authority: %v", err)
	}
	// TLS 1.2 is not spoken, whatever the configuration says.
	to = transport{}.serve(t, func(p *peer) {
		conf, _ := certificate()
		conf = conf.Clone()
		conf.MaxVersion = tls.VersionTLS12
		if err := tls.Server(p.Conn, conf).Handshake(); err == nil {
			t.Error("a handshake of TLS 1.2 succeeded")
		}
	})
	to.TlsServerName = serverName
	d := wire.Dialer{TLS: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS10}}
	if _, _, err := d.Dial(t.Context(), to, login); err == nil {
		t.Error("connected to a server of TLS 1.2")
	}
}

func TestABrokenStreamEndsTheConnection(t *testing.T) {
	each(t, func(t *testing.T, tr transport) {
		t.Helper()
		for name, c := range map[string]struct {
			tail []byte
			want error
		}{
			"closed":      {nil, io.EOF},
			"cut":         {[]byte{0, 0, 0, 9, 1, 2}, io.ErrUnexpectedEOF},
			"too large":   {[]byte{0xff, 0, 0, 0}, wire.ErrProtocol},
			"empty":       {[]byte{0, 0, 0, 0}, wire.ErrProtocol},
			"no protobuf": {[]byte{0, 0, 0, 1, 0xff}, wire.ErrProtocol},
		} {
			t.Run(name, func(t *testing.T) {
				to := tr.serve(t, func(p *peer) {
					p.hello(time.Minute)
					p.raw(append(encode(event(1, "good")), c.tail...))
				})
				var got collector
				if err := tr.dial(t, to).Serve(&got); !errors.Is(err, c.want) {
					t.Errorf("Serve ended with %v, want %v", err, c.want)
				}
				if len(got.frames) != 1 {
					t.Errorf("got %v before the break", got.frames)
				}
			})
		}
	})
}

func TestASilentServerIsPingedAndThenLeft(t *testing.T) {
	each(t, func(t *testing.T, tr transport) {
		t.Helper()
		const heartbeat = 300 * time.Millisecond
		type result struct {
			pings    int
			answered time.Time
		}
		ended := make(chan result, 1)
		to := tr.serve(t, func(p *peer) {
			p.hello(heartbeat)
			got := result{answered: time.Now()}
			for f := p.read(); f != nil; f = p.read() {
				if f.GetPing() == nil || f.GetRequestId() != 0 {
					t.Errorf("the client sent %v", f)
				}
				if got.pings++; got.pings <= 3 {
					got.answered = time.Now()
					p.write(pong())
				}
			}
			ended <- got
		})
		err := tr.dial(t, to).Serve(&collector{})
		left := time.Now()
		if !errors.Is(err, wire.ErrSilent) {
			t.Errorf("Serve ended with %v", err)
		}
		if got := <-ended; got.pings < 4 || left.Sub(got.answered) < 2*heartbeat {
			t.Errorf("left after %d pings and %v of silence", got.pings, left.Sub(got.answered))
		}
	})
}

func TestBytesThatDripAreNoSignOfLife(t *testing.T) {
	each(t, func(t *testing.T, tr transport) {
		t.Helper()
		to := tr.serve(t, func(p *peer) {
			p.hello(50 * time.Millisecond)
			p.raw(append(encode(event(1, "whole")), 0, 0, 1, 0)) // and the beginning of a frame
			ticker := time.NewTicker(10 * time.Millisecond)
			defer ticker.Stop()
			for range 1000 {
				<-ticker.C
				if _, err := p.Write([]byte{1}); err != nil {
					return
				}
			}
		})
		if err := tr.dial(t, to).Serve(&collector{}); !errors.Is(err, wire.ErrSilent) {
			t.Errorf("Serve ended with %v", err)
		}
	})
}

func TestAHandlerThatTakesLongIsNotTheServersSilence(t *testing.T) {
	each(t, func(t *testing.T, tr transport) {
		t.Helper()
		const enough = 6 // pings, one each heartbeat: three times the limit
		var pings atomic.Int32
		to := tr.serve(t, func(p *peer) {
			p.hello(50 * time.Millisecond)
			p.write(event(1, "a"))
			for f := p.read(); f != nil; f = p.read() { // answers nothing
				if pings.Load() == enough-1 {
					p.write(goodbye(draining))
				}
				pings.Add(1)
			}
		})
		got := &collector{}
		got.frame = func() {
			testenv.Until(t, "pings go on", func() bool { return pings.Load() >= enough })
		}
		if err := tr.dial(t, to).Serve(got); !errors.As(err, new(*wire.GoodbyeError)) {
			t.Errorf("Serve ended with %v", err)
		}
	})
}

func TestCloseFreesWhoReadsAndWrites(t *testing.T) {
	each(t, func(t *testing.T, tr transport) {
		t.Helper()
		to := tr.serve(t, func(p *peer) {
			p.hello(time.Minute)
			<-t.Context().Done() // reads nothing more
		})
		c := tr.dial(t, to)
		served, failed := make(chan error, 1), make(chan error, 1)
		go func() { served <- c.Serve(&collector{}) }()
		var wrote atomic.Int64
		go func() {
			var err error
			for err == nil {
				err = c.Write(make([]byte, 64<<10))
				wrote.Add(1)
			}
			failed <- err
		}()
		stuck := int64(-1) // the writer has stopped when nothing was written for a while
		testenv.Until(t, "the socket is full", func() bool {
			before := stuck
			stuck = wrote.Load()
			time.Sleep(20 * time.Millisecond) // between two looks at the count
			return before > 0 && before == wrote.Load()
		})
		c.Close()
		if err := <-failed; !errors.Is(err, net.ErrClosed) {
			t.Errorf("the write ended with %v", err)
		}
		if err := <-served; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Serve ended with %v", err)
		}
		if err := c.Write([]byte("x")); err == nil {
			t.Error("a closed connection takes more")
		}
		if err := c.Fail(wire.ErrStuck); !errors.Is(err, net.ErrClosed) {
			t.Errorf("the first reason is now %v", err)
		}
	})
}

// A server that ends a connection closes it with requests unread, which resets
// it: the next write fails before the Goodbye was read.
func TestAGoodbyeIsFoundBehindAFailedWrite(t *testing.T) {
	each(t, func(t *testing.T, tr transport) {
		t.Helper()
		to := tr.serve(t, func(p *peer) {
			p.hello(time.Minute)
			p.write(goodbye(draining))
		})
		c := tr.dial(t, to)
		for {
			if err := c.Write(make([]byte, 1<<10)); err != nil {
				break
			}
		}
		if err := c.Serve(&collector{}); !errors.As(err, new(*wire.GoodbyeError)) {
			t.Errorf("Serve ended with %v", err)
		}
	})
}

func TestARequestThatTheServerWouldNotTakeIsNotSent(t *testing.T) {
	to := transport{}.serve(t, func(p *peer) {
		p.hello(time.Minute)
		p.untilClosed()
	})
	c := transport{}.dial(t, to)
	send := func(n int) *chatv1.ClientFrame {
		return &chatv1.ClientFrame{
			RequestId: 2, Body: &chatv1.ClientFrame_Send{Send: &chatv1.Send{Body: make([]byte, n)}},
		}
	}
	before := []byte("before")
	out, err := c.Append(before, send(32<<10))
	if !errors.Is(err, frame.ErrTooLarge) || string(out) != "before" {
		t.Errorf("%d bytes were appended, %v", len(out)-len(before), err)
	}
	if out, err = c.Append(before, send(31<<10)); err != nil || len(out) < 31<<10 {
		t.Errorf("%d bytes were appended, %v", len(out)-len(before), err)
	}
}
