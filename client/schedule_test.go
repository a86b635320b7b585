package client_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/client/internal/fake"
	"github.com/msrchat/msrchat/client/store"
	"github.com/msrchat/msrchat/shared/errs"
)

// TestAnyScheduleOfFaults plays random faults while three people write to each
// other, then checks what DESIGN promises: each message once, in the order its
// author typed, everything received.
func TestAnyScheduleOfFaults(t *testing.T) {
	seeds := 6
	if testing.Short() {
		seeds = 2
	}
	for i := range seeds {
		seed := uint64(i + 1)
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			s := newSchedule(t, seed)
			for range 250 {
				s.step()
			}
			s.settle()
		})
	}
}

type schedule struct {
	*world
	t      *testing.T
	rng    *rand.Rand
	names  []string
	people map[string]*person
	stores map[string]*store.Memory
	pairs  map[[2]string]uint64
	typed  map[uint64]map[string][]string // conversation, author: texts
	count  int

	mu     sync.Mutex
	random *rand.Rand // for the faults; under mu
	rate   int        // faults per thousand; under mu
	late   []*chatv1.Event
}

func newSchedule(t *testing.T, seed uint64) *schedule {
	t.Helper()
	s := &schedule{
		world: newWorld(t, 3), t: t, rng: rand.New(rand.NewPCG(seed, 1)),
		random: rand.New(rand.NewPCG(seed, 2)), rate: 60,
		names: []string{"alice", "bob", "carol"}, people: map[string]*person{}, stores: map[string]*store.Memory{},
		pairs: map[[2]string]uint64{}, typed: map[uint64]map[string][]string{},
	}
	s.user("carol")
	for _, server := range s.servers {
		server.Heartbeat = 200 * time.Millisecond
		s.addFaults(server)
	}
	for i, a := range s.names {
		for _, b := range s.names[i+1:] {
			conv := s.log.Open(a, b)
			s.pairs[[2]string{a, b}], s.pairs[[2]string{b, a}] = conv, conv
			s.typed[conv] = map[string][]string{}
		}
		data := store.NewMemory(100_000)
		if err := data.SetListed(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		s.stores[a] = data
		s.start(a)
	}
	return s
}

func (s *schedule) start(name string) {
	s.people[name] = s.open(s.t, name, func(o *client.Options) {
		o.Store = s.stores[name].Another()
		o.EventBuffer = 20
		o.Patience = 300 * time.Millisecond
	})
}

// chance says yes n times of a thousand, by the rate.
func (s *schedule) chance() (roll int, yes bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.random.IntN(5), s.random.IntN(1000) < s.rate
}

// addFaults gives a server its random faults.
func (s *schedule) addFaults(server *fake.Server) {
	server.Do(func(f *fakeFaults) {
		f.Send = func(*chatv1.Send) (fate, error) {
			roll, yes := s.chance()
			switch {
			case !yes:
				return fake.Answer, nil
			case roll == 4:
				return fake.Answer, fake.Unavailable(time.Millisecond)
			}
			return fate(roll), nil // answered, or cut in one of three places
		}
		f.Push = func(ev *chatv1.Event) []*chatv1.Event {
			roll, yes := s.chance()
			s.mu.Lock()
			defer s.mu.Unlock()
			if !yes {
				return []*chatv1.Event{ev}
			}
			switch roll {
			case 0, 1:
				return nil
			case 2:
				return []*chatv1.Event{ev, ev}
			case 3:
				// Held back until another one of the same log comes by.
				s.late = append(s.late, ev)
				return nil
			}
			out := []*chatv1.Event{ev}
			s.late = slices.DeleteFunc(s.late, func(old *chatv1.Event) bool {
				same := old.GetConversationId() == ev.GetConversationId()
				if same {
					out = append(out, old)
				}
				return same
			})
			return out
		}
	})
}

// step lets somebody write, or something happen.
func (s *schedule) step() {
	if s.rng.IntN(10) > 0 {
		s.write()
		return
	}
	server := s.servers[s.rng.IntN(len(s.servers))]
	switch s.rng.IntN(7) {
	case 0:
		server.Cut()
	case 1:
		server.Goodbye(&chatv1.Goodbye{
			Code: chatv1.GoodbyeCode_GOODBYE_CODE_DRAINING, Reconnect: true,
			ReconnectAfterMs: uint32(s.rng.IntN(20)),
		})
	case 2:
		server.Kill()
		i := slices.Index(s.servers, server)
		s.count++
		s.servers[i] = fake.NewServer(s.t, s.log, fmt.Sprintf("n%d", s.count))
		s.servers[i].Heartbeat = 200 * time.Millisecond
		s.addFaults(s.servers[i])
	case 3:
		server.Silence(true)
		time.AfterFunc(time.Duration(s.rng.IntN(300))*time.Millisecond, func() { server.Silence(false) })
	case 4:
		s.gate.Fail(errs.New(errs.CodeUnavailable, "away"))
		time.AfterFunc(time.Duration(s.rng.IntN(100))*time.Millisecond, func() { s.gate.Fail(nil) })
	case 5:
		server.Repair()
	case 6:
		// A program ends, with whatever it has queued, and is started again.
		name := s.names[s.rng.IntN(len(s.names))]
		s.people[name].Close()
		s.start(name)
	}
	time.Sleep(time.Duration(s.rng.IntN(10)) * time.Millisecond) // spreads the schedule
}

func (s *schedule) write() {
	from := s.names[s.rng.IntN(len(s.names))]
	to := s.names[s.rng.IntN(len(s.names))]
	if from == to {
		return
	}
	conv := s.pairs[[2]string{from, to}]
	texts := s.typed[conv][from]
	text := fmt.Sprintf("%s %d 你好", from, len(texts)+1)
	if _, known, err := s.stores[from].Conversation(s.t.Context(), conv); err == nil && known && s.rng.IntN(2) == 0 {
		s.people[from].send(conv, text)
	} else {
		s.people[from].sendTo(strings.ToUpper(to), text)
	}
	s.typed[conv][from] = append(texts, text)
}

// settle ends the faults, waits until all is quiet, and checks.
func (s *schedule) settle() {
	s.mu.Lock()
	s.rate = 0
	s.mu.Unlock()
	s.gate.Fail(nil)
	for _, server := range s.servers {
		server.Silence(false)
	}
	for conv, authors := range s.typed {
		want := 0
		for _, texts := range authors {
			want += len(texts)
		}
		until(s.t, fmt.Sprintf("%d messages in conversation %d", want, conv), func() bool {
			return len(s.log.Texts(conv)) >= want
		})
		log := s.log.Texts(conv)
		for author, texts := range authors {
			var got []string
			for _, text := range log {
				if strings.HasPrefix(text, author) {
					got = append(got, text)
				}
			}
			if !slices.Equal(got, texts) {
				s.t.Errorf("conversation %d, by %s: logged %q, typed %q", conv, author, got, texts)
			}
		}
	}
	for pair, conv := range s.pairs {
		s.complete(s.people[pair[0]], conv)
	}
}

// complete checks that a person's store ends up with the whole log, and that
// what this program received is an end of it.
func (s *schedule) complete(p *person, conv uint64) {
	want := s.log.Texts(conv)
	until(s.t, "complete log", func() bool {
		for _, server := range s.servers {
			server.Repair()
		}
		have, err := s.stores[p.Session().User.Name].Messages(s.t.Context(), conv, 0, 100_000)
		return err == nil && len(have) == len(want)
	})
	have, err := s.stores[p.Session().User.Name].Messages(s.t.Context(), conv, 0, 100_000)
	if err != nil {
		s.t.Fatal(err)
	}
	for i, m := range have {
		if m.Text() != want[i] || m.Seq != uint64(i+1) {
			s.t.Fatalf("stored message %d: %d %q, want %q", i+1, m.Seq, m.Text(), want[i])
		}
	}
	until(s.t, "what was received reaches the end", func() bool {
		got := p.texts(conv)
		return len(got) <= len(want) && slices.Equal(got, want[len(want)-len(got):])
	})
}
