package probe

import (
	"errors"
	"log/slog"
	"net"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/frame"
	"github.com/msrchat/msrchat/shared/wire"
)

// connect connects account 2 to a server that lets it in and then answers each
// request as answer says; nil ends the connection.
func connect(t *testing.T, answer func(f *chatv1.ClientFrame) []*chatv1.ServerFrame) *conn {
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
		frames := []*chatv1.ServerFrame{{RequestId: 1, Body: &chatv1.ServerFrame_Welcome{
			Welcome: &chatv1.Welcome{UserId: 2, LogEpoch: 5},
		}}}
		for frames != nil {
			request := &chatv1.ClientFrame{}
			if _, err := frame.Read(nc, 1<<20, nil, request); err != nil {
				return
			}
			if request.GetHello() == nil {
				frames = answer(request)
			}
			var out []byte
			for _, f := range frames {
				if out, err = frame.Append(out, f); err != nil {
					t.Error(err)
				}
			}
			if _, err := nc.Write(out); err != nil {
				return
			}
		}
	}()
	p := &Probe{
		log: slog.New(slog.DiscardHandler), metrics: newMetrics(prometheus.NewRegistry()), state: newState(1),
	}
	p.tracker = newTracker(p.metrics)
	c, err := p.dial(t.Context(), server{address: l.Addr().String()}, &account{id: 2, token: []byte("secret")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.close()
		_ = l.Close()
		<-done
	})
	return c
}

func TestAnswersGoToTheirRequestsAndPushesToTheTracker(t *testing.T) {
	m := &message{id: [16]byte{1}, conversation: 7, sender: 1, reader: 2, text: "hi"}
	var held *chatv1.ServerFrame
	c := connect(t, func(f *chatv1.ClientFrame) []*chatv1.ServerFrame {
		answer := &chatv1.ServerFrame{RequestId: f.GetRequestId()}
		if f.GetPing() != nil { // answered after the next request
			answer.Body = &chatv1.ServerFrame_Pong{Pong: &chatv1.Pong{}}
			held = answer
			return []*chatv1.ServerFrame{}
		}
		answer.Body = &chatv1.ServerFrame_Failure{Failure: &chatv1.Failure{Code: "not_found", Text: "no such log"}}
		return []*chatv1.ServerFrame{
			{Body: &chatv1.ServerFrame_Event{Event: &chatv1.Event{
				ConversationId: 7, Seq: 12, SenderId: 1, ClientMsgId: m.id[:], Kind: 1, Body: []byte("hi"),
			}}},
			answer, held,
		}
	})
	c.probe.tracker.sending(m)
	pinged := c.start(&chatv1.ClientFrame{Body: &chatv1.ClientFrame_Ping{Ping: &chatv1.Ping{}}})
	if _, _, err := c.history(t.Context(), 7, 1, 2); errs.CodeOf(err) != errs.CodeNotFound {
		t.Errorf("history gave %v", err)
	}
	if f, err := c.await(t.Context(), pinged); err != nil || f.GetPong() == nil {
		t.Errorf("the ping was answered with %v, %v", f, err)
	}
	c.probe.tracker.acknowledged(m, 12, c)
	if left := c.probe.tracker.undelivered(); len(left) != 0 || m.pushed != 12 {
		t.Errorf("undelivered: %v, pushed as number %d", left, m.pushed)
	}
	if c.epoch != 5 || c.user != 2 {
		t.Errorf("epoch %d, user %d", c.epoch, c.user)
	}
}

func TestRequestsWithoutAnAnswerEndWithTheConnection(t *testing.T) {
	requests := 0
	c := connect(t, func(*chatv1.ClientFrame) []*chatv1.ServerFrame {
		if requests++; requests < 3 {
			return []*chatv1.ServerFrame{}
		}
		return []*chatv1.ServerFrame{{Body: &chatv1.ServerFrame_Goodbye{Goodbye: &chatv1.Goodbye{Text: "so long"}}}}
	})
	for range 3 {
		reply := c.start(&chatv1.ClientFrame{Body: &chatv1.ClientFrame_Ping{Ping: &chatv1.Ping{}}})
		defer func() {
			_, err := c.await(t.Context(), reply)
			if !errors.Is(err, errEnded) || !errors.As(err, new(*wire.GoodbyeError)) {
				t.Errorf("a request ended with %v", err)
			}
		}()
	}
	<-c.done
	if c.alive() || c.ping(t.Context()) == nil {
		t.Error("the connection still takes requests")
	}
}

func TestARefusedLoginIsNoReasonToTryAgainInThisRound(t *testing.T) {
	for code, want := range map[chatv1.GoodbyeCode]bool{
		chatv1.GoodbyeCode_GOODBYE_CODE_FULL: true, chatv1.GoodbyeCode_GOODBYE_CODE_DRAINING: true,
	} {
		err := error(&wire.GoodbyeError{Goodbye: &chatv1.Goodbye{Code: code, Reconnect: true}})
		if got := (&Probe{}).refused(t.Context(), &account{}, err); got != want {
			t.Errorf("%v: refused is %v", code, got)
		}
	}
	if (&Probe{}).refused(t.Context(), &account{}, net.ErrClosed) {
		t.Error("a lost connection counts as refused")
	}
}
