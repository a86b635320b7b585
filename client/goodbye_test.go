package client_test

import (
	"slices"
	"sync"
	"testing"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/shared/errs"
)

func TestGoodbyes(t *testing.T) {
	bye := func(code chatv1.GoodbyeCode, reconnect bool) *chatv1.Goodbye {
		return &chatv1.Goodbye{Code: code, Text: "because", Reconnect: reconnect}
	}
	for _, c := range []struct {
		name string
		bye  *chatv1.Goodbye
		want client.LinkState
		code errs.Code
		away bool // reconnects elsewhere
	}{
		{"draining", bye(chatv1.GoodbyeCode_GOODBYE_CODE_DRAINING, true), client.Online, "", true},
		{"full", bye(chatv1.GoodbyeCode_GOODBYE_CODE_FULL, true), client.Online, "", true},
		{"rebalance", bye(chatv1.GoodbyeCode_GOODBYE_CODE_REBALANCE, true), client.Online, "", true},
		{"unavailable", bye(chatv1.GoodbyeCode_GOODBYE_CODE_UNAVAILABLE, true), client.Online, "", true},
		{"slow", bye(chatv1.GoodbyeCode_GOODBYE_CODE_SLOW, true), client.Online, "", false},
		{
			"unauthenticated", bye(chatv1.GoodbyeCode_GOODBYE_CODE_UNAUTHENTICATED, false), client.LoggedOut,
			errs.CodeUnauthenticated, false,
		},
		{
			"unauthenticated, yet reconnect", bye(chatv1.GoodbyeCode_GOODBYE_CODE_UNAUTHENTICATED, true),
			client.LoggedOut, errs.CodeUnauthenticated, false,
		},
		{"version", bye(chatv1.GoodbyeCode_GOODBYE_CODE_VERSION, false), client.Stopped, errs.CodeForbidden, false},
		{"protocol", bye(chatv1.GoodbyeCode_GOODBYE_CODE_PROTOCOL, false), client.Stopped, errs.CodeForbidden, false},
		{"unknown code", bye(77, true), client.Online, "", true},
	} {
		for _, early := range []bool{false, true} {
			name := c.name + ", later"
			if early {
				name = c.name + ", instead of welcome"
			}
			t.Run(name, func(t *testing.T) {
				w := newWorld(t, 2)
				w.gate.Only("s1")
				if early {
					w.servers[0].Do(func(f *fakeFaults) {
						f.Hello = func(*chatv1.Hello) *chatv1.Goodbye { return c.bye }
					})
				}
				alice := w.open(t, "alice", func(o *client.Options) {
					o.Backoff = client.Backoff{First: time.Millisecond, Base: time.Millisecond}
				})
				if !early {
					alice.untilState(client.Online)
				}
				if !early || c.away {
					w.gate.Only() // from now on any
				}
				if !early {
					w.servers[0].Goodbye(c.bye)
				}
				if c.want != client.Online {
					link := alice.untilState(c.want)
					if errs.CodeOf(link.Cause) != c.code {
						t.Errorf("cause: %v", link.Cause)
					}
					out := alice.sendTo("Bob", "kept")
					if _, err := alice.Wait(bounded(t), out.ID); errs.CodeOf(err) != c.code {
						t.Errorf("wait: %v", err)
					}
					if _, err := alice.Conversations(bounded(t)); errs.CodeOf(err) != c.code {
						t.Errorf("call: %v", err)
					}
					if _, err := alice.WaitOnline(bounded(t)); errs.CodeOf(err) != c.code {
						t.Errorf("wait online: %v", err)
					}
					if unsent, err := alice.Unsent(t.Context()); err != nil || len(unsent) != 1 {
						t.Errorf("unsent: %+v, %v", unsent, err)
					}
					return
				}
				if early && !c.away {
					return // it would come back for ever, as asked
				}
				alice.wait(alice.sendTo("Bob", "after"))
				if got := alice.Link().Instance; c.away && got != "s2" {
					t.Errorf("reconnected to %s", got)
				}
			})
		}
	}
}

func TestARefusalsTimeIsObeyedEveryTime(t *testing.T) {
	w := newWorld(t, 1)
	const after = 120 * time.Millisecond
	var mu sync.Mutex
	var hellos []time.Time
	w.servers[0].Do(func(f *fakeFaults) {
		f.Hello = func(*chatv1.Hello) *chatv1.Goodbye {
			mu.Lock()
			defer mu.Unlock()
			if hellos = append(hellos, time.Now()); len(hellos) == 5 {
				return nil
			}
			return &chatv1.Goodbye{
				Code: chatv1.GoodbyeCode_GOODBYE_CODE_FULL, Reconnect: true,
				ReconnectAfterMs: uint32(after / time.Millisecond),
			}
		}
	})
	w.open(t, "alice").untilState(client.Online)
	mu.Lock()
	defer mu.Unlock()
	for i := 1; i < len(hellos); i++ {
		if gap := hellos[i].Sub(hellos[i-1]); gap < after {
			t.Errorf("attempt %d came after %v, asked for %v", i+1, gap, after)
		}
	}
}

func TestAGoodbyesTimeIsObeyed(t *testing.T) {
	w := newWorld(t, 2)
	alice := w.open(t, "alice")
	first := alice.untilState(client.Online).Instance
	const after = 300 * time.Millisecond
	start := time.Now()
	for _, s := range w.servers {
		s.Goodbye(&chatv1.Goodbye{
			Code: chatv1.GoodbyeCode_GOODBYE_CODE_DRAINING, Reconnect: true,
			ReconnectAfterMs: uint32(after / time.Millisecond),
		})
	}
	until(t, "another server", func() bool {
		l := alice.Link()
		return l.State == client.Online && l.Instance != first
	})
	if took := time.Since(start); took < after {
		t.Errorf("back after %v, asked for %v", took, after)
	}
	avoids := w.gate.Avoids()
	if got := avoids[len(avoids)-1]; !slices.Equal(got, []string{first}) {
		t.Errorf("avoided %q, want %s", got, first)
	}
	// A person may be less patient.
	for _, s := range w.servers {
		s.Goodbye(&chatv1.Goodbye{
			Code: chatv1.GoodbyeCode_GOODBYE_CODE_DRAINING, Reconnect: true,
			ReconnectAfterMs: 3_600_000,
		})
	}
	alice.untilState(client.Offline)
	if err := alice.Reconnect(t.Context()); err != nil {
		t.Fatal(err)
	}
	alice.untilState(client.Online)
}
