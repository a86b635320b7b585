package load

import (
	"testing"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/wire"
)

// under returns a pair with n messages under way.
func under(t *testing.T, n int) *pair {
	t.Helper()
	cfg := Config{Clients: 2, Window: n, MinSize: 8, MaxSize: 8, Duration: time.Second, Settle: time.Second}
	r := newRunner(cfg, nil, Hooks{})
	r.sending.Store(true)
	r.measuring.Store(true)
	p := r.pairs[0]
	p.conversation = 1
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sender = &wire.Conn{}
	p.fill()
	p.sender, p.out = nil, nil
	if r.sent.Load() != int64(n) {
		t.Fatalf("%d messages are under way, want %d", r.sent.Load(), n)
	}
	r.sending.Store(false)
	return p
}

// logged is the number-th message under a sequence number in the log.
func (p *pair) logged(number, seq uint64) *chatv1.Event {
	id := p.id(number)
	return &chatv1.Event{ConversationId: 1, Seq: seq, ClientMsgId: id[:]}
}

func (p *pair) push(number, seq uint64) {
	receiving{p}.Frame(&chatv1.ServerFrame{Body: &chatv1.ServerFrame_Event{Event: p.logged(number, seq)}})
}

func (p *pair) page(head uint64, events ...*chatv1.Event) {
	page := &chatv1.HistoryPage{ConversationId: 1, Head: head, Events: events}
	receiving{p}.Frame(&chatv1.ServerFrame{Body: &chatv1.ServerFrame_HistoryPage{HistoryPage: page}})
}

func TestEachHistoryIsCountedAsWhatItIs(t *testing.T) {
	type counts struct{ delivered, pulled, lost, doubled, reordered, misnumbered, unanswered int64 }
	for name, test := range map[string]struct {
		history func(p *pair)
		want    counts
	}{
		"nothing went wrong": {func(p *pair) {
			for n := uint64(1); n <= 3; n++ {
				p.acked(n, n)
				p.push(n, n)
			}
		}, counts{delivered: 3}},
		"delivered before acknowledged": {func(p *pair) {
			for n := uint64(1); n <= 3; n++ {
				p.push(n, n)
				p.acked(n, n)
			}
		}, counts{delivered: 3}},
		"a push that comes twice is no double": {func(p *pair) {
			for n := uint64(1); n <= 3; n++ {
				p.acked(n, n)
				p.push(n, n)
				p.push(n, n)
			}
		}, counts{delivered: 3}},
		"pushes in another order are put right": {func(p *pair) {
			for n := uint64(1); n <= 3; n++ {
				p.acked(n, n)
			}
			p.push(3, 3)
			p.push(2, 2)
			p.push(1, 1)
		}, counts{delivered: 3}},
		"a lost push is pulled": {func(p *pair) {
			for n := uint64(1); n <= 3; n++ {
				p.acked(n, n)
			}
			p.push(1, 1)
			p.push(3, 3)
			p.page(3, p.logged(2, 2), p.logged(3, 3))
		}, counts{delivered: 3, pulled: 1}},
		"acknowledged and gone": {func(p *pair) {
			p.acked(1, 1)
			p.acked(2, 2)
			p.push(1, 1)
		}, counts{delivered: 1, lost: 1, unanswered: 1}},
		"in the log twice": {func(p *pair) {
			p.acked(1, 1)
			p.push(1, 1)
			p.push(1, 2)
		}, counts{delivered: 1, doubled: 1, unanswered: 2}},
		"in the log twice, while it is under way": {func(p *pair) {
			p.push(1, 1)
			p.push(1, 2)
		}, counts{delivered: 1, doubled: 1, unanswered: 3}},
		"out of order in the log": {func(p *pair) {
			p.acked(1, 2)
			p.acked(2, 1)
			p.acked(3, 3)
			p.push(2, 1)
			p.push(1, 2)
			p.push(3, 3)
		}, counts{delivered: 3, reordered: 1}},
		"elsewhere than acknowledged": {func(p *pair) {
			p.acked(1, 7)
			p.push(1, 1)
		}, counts{delivered: 1, misnumbered: 1, unanswered: 2}},
		"never answered": {func(*pair) {}, counts{unanswered: 3}},
	} {
		t.Run(name, func(t *testing.T) {
			p := under(t, 3)
			test.history(p)
			p.finish()
			r := p.run.result(1, false)
			got := counts{r.Delivered, r.Pulled, r.Lost, r.Doubled, r.Reordered, r.Misnumbered, r.Unanswered}
			if got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
			if broken := got.lost+got.doubled+got.reordered+got.misnumbered > 0; broken != (r.Broken() != nil) {
				t.Errorf("Broken says %v", r.Broken())
			}
		})
	}
}

func TestASlotIsFreeOnceItsMessageAndAllBeforeAreAcknowledgedAndReceived(t *testing.T) {
	p := under(t, 2)
	if p.run.waiting.Load() != 2 {
		t.Errorf("%d wait", p.run.waiting.Load())
	}
	p.push(2, 2) // ahead of 1
	p.acked(1, 1)
	p.acked(2, 2)
	if p.done != 0 {
		t.Errorf("all up to %d is done, nothing was received", p.done)
	}
	p.push(1, 1)
	if p.done != 2 || p.run.waiting.Load() != 0 {
		t.Errorf("all up to %d is done, %d wait", p.done, p.run.waiting.Load())
	}
}

func TestAMessagesIDHoldsItsNumber(t *testing.T) {
	p := under(t, 1)
	id := p.id(1)
	if id[6]>>4 != 7 || id[8]>>6 != 2 {
		t.Errorf("%x is no UUIDv7", id)
	}
	if n, mine := p.number(id[:]); !mine || n != 1 {
		t.Errorf("%x is number %d, %v", id, n, mine)
	}
	id[11] ^= 1 // another pair
	if _, mine := p.number(id[:]); mine {
		t.Error("another pair's message is taken for this one's")
	}
	if _, mine := p.number(nil); mine {
		t.Error("no id is taken for this pair's")
	}
}

func TestTextsHaveEveryLengthBetweenTheBounds(t *testing.T) {
	r := newRunner(Config{Clients: 2, Window: 1, MinSize: 3, MaxSize: 9}, nil, Hooks{})
	seen := make(map[int]bool)
	for n := uint64(1); n < 1000; n++ {
		seen[len(r.pairs[0].text(n))] = true
	}
	for n := 3; n <= 9; n++ {
		if !seen[n] {
			t.Errorf("no text of %d bytes", n)
		}
	}
	if len(seen) != 7 {
		t.Errorf("texts of %v bytes", seen)
	}
}

func TestAWrongConfigurationIsRefused(t *testing.T) {
	good := Config{Clients: 2, Window: 1, MinSize: 1, MaxSize: 1, Duration: 1, Settle: 1}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*Config){
		"odd": func(c *Config) { c.Clients = 3 }, "none": func(c *Config) { c.Clients = 0 },
		"window and rate": func(c *Config) { c.Rate = 1 }, "neither": func(c *Config) { c.Window = 0 },
		"window": func(c *Config) { c.Window = 257 }, "size": func(c *Config) { c.MaxSize = 0 },
		"long": func(c *Config) { c.MaxSize = 1 << 20 }, "duration": func(c *Config) { c.Duration = 0 },
		"rate": func(c *Config) { c.Window, c.Rate = 0, -1 },
	} {
		c := good
		change(&c)
		if c.Validate() == nil {
			t.Errorf("%s: %+v is taken", name, c)
		}
	}
}
