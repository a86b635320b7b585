package route_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/msrchat/msrchat/shared/cache"
	"github.com/msrchat/msrchat/shared/testenv"

	"github.com/msrchat/msrchat/chat/internal/route"
)

// server is one chat server's table on a real Redis.
type server struct {
	*route.Table
	client   redis.UniversalClient
	registry *prometheus.Registry
	others   []string
	missed   atomic.Int64
	told     atomic.Bool
	added    func(user uint64) // set before it may be called
	stop     func()
}

// heartbeat of the servers.
const heartbeat = 20 * time.Second

// start starts a server that reaches Redis there.
func start(t *testing.T, at cache.Config, instance string) *server {
	t.Helper()
	return startBeating(t, at, instance, heartbeat)
}

func startBeating(t *testing.T, at cache.Config, instance string, heartbeat time.Duration) *server {
	t.Helper()
	client, err := cache.Open(at)
	if err != nil {
		t.Fatal(err)
	}
	others := slices.DeleteFunc([]string{"a", "b", "c"}, func(other string) bool { return other == instance })
	s := &server{client: client, registry: prometheus.NewRegistry(), others: others}
	s.Table = route.New(route.Options{
		Instance:  instance,
		Redis:     client,
		Heartbeat: heartbeat,
		Logger:    slog.New(slog.DiscardHandler),
		Missed:    func() { s.missed.Add(1) },
		Told:      s.told.Load,
		Added: func(user uint64) {
			if s.added != nil {
				s.added(user)
			}
		},
		Registerer: s.registry,
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		_ = client.Close()
	})
	t.Cleanup(s.stop)
	return s
}

// failures is how many exchanges with Redis failed.
func (s *server) failures(t *testing.T) float64 {
	t.Helper()
	families, err := s.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "msrchat_route_failures_total" {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	return 0
}

// at is where a server would send for a user, out of the two others.
func (s *server) at(t *testing.T, user uint64) (instances []string, complete bool) {
	t.Helper()
	found, unlinked := s.Lookup(t.Context(), []uint64{user}, s.others)
	for _, place := range found[user] {
		instances = append(instances, place.Instance)
	}
	slices.Sort(instances)
	return instances, !unlinked[user]
}

// until waits until a server would send exactly there for a user.
func (s *server) until(t *testing.T, what string, user uint64, want ...string) {
	t.Helper()
	testenv.Until(t, what, func() bool {
		got, _ := s.at(t, user)
		return slices.Equal(got, want)
	})
}

// three starts a, b and c, and waits until the routes of all are complete.
func three(t *testing.T, r cache.Config) (a, b, c *server) {
	t.Helper()
	a, b, c = start(t, r, "a"), start(t, r, "b"), start(t, r, "c")
	a.until(t, "a sees that nobody is there", 1)
	c.until(t, "c too", 1)
	return a, b, c
}

func TestConnectionsComeAndGo(t *testing.T) {
	t.Parallel()
	r := testenv.Redis(t)
	a, b, c := three(t, r)
	b.Add(t.Context(), 1, 11)
	if got, complete := a.at(t, 1); !slices.Equal(got, []string{"b"}) || !complete {
		t.Errorf("a sends to %v, %v; a route is written when Add returns", got, complete)
	}
	if got, _ := b.at(t, 1); len(got) != 0 {
		t.Errorf("b would send to itself: %v", got)
	}
	found, _ := a.Lookup(t.Context(), []uint64{1}, a.others)
	if !slices.Equal(found[1], []route.Place{{Instance: "b", Only: 11}}) {
		t.Errorf("a finds %v, want the one connection", found)
	}
	b.Add(t.Context(), 1, 12) // a second connection on the same server
	found, _ = a.Lookup(t.Context(), []uint64{1}, a.others)
	if !slices.Equal(found[1], []route.Place{{Instance: "b"}}) {
		t.Errorf("a finds %v, want several connections", found)
	}
	c.Add(t.Context(), 1, 11) // and one elsewhere, with the same number
	b.Remove(1, 11)
	a.until(t, "one is left on b", 1, "b", "c")
	b.Remove(1, 11) // again: the other connection's route stays
	b.Remove(2, 99) // one that never existed
	b.Add(t.Context(), 3, 31)
	a.until(t, "b goes on", 3, "b")
	if got, _ := a.at(t, 1); !slices.Equal(got, []string{"b", "c"}) {
		t.Errorf("a sends to %v", got)
	}
	b.Remove(1, 12)
	a.until(t, "b has none", 1, "c")
	c.Remove(1, 11)
	a.until(t, "nobody has", 1)
	client := testenv.OpenRedis(t, r)
	b.Remove(3, 31)
	a.until(t, "no routes are left", 3)
	for _, key := range testenv.RedisKeys(t, r, "*") {
		if ttl := client.PTTL(t.Context(), key).Val(); ttl <= 0 || ttl > 90*time.Second {
			t.Errorf("%s expires in %v", key, ttl)
		}
	}
}

func TestAUserOnAServerThatIsNotLinked(t *testing.T) {
	t.Parallel()
	a, b, _ := three(t, testenv.Redis(t))
	b.Add(t.Context(), 1, 1)
	got, unlinked := a.Lookup(t.Context(), []uint64{1, 2}, []string{"c"}) // b just started
	if !unlinked[1] || unlinked[2] || len(got[1]) != 0 || len(got[2]) != 0 {
		t.Errorf("got %v, unlinked %v", got, unlinked)
	}
	if got, unlinked := a.Lookup(t.Context(), nil, nil); len(unlinked) != 0 || len(got) != 0 {
		t.Errorf("nobody: %v, %v", got, unlinked)
	}
}

func TestRedisLosesEverything(t *testing.T) {
	t.Parallel()
	r := testenv.Redis(t)
	a, b, _ := three(t, r)
	b.Add(t.Context(), 1, 1)
	before := b.missed.Load()
	testenv.EmptyRedis(t, r)
	at := time.Now()
	// At no moment does a leave out b.
	testenv.Until(t, "the routes are written anew", func() bool {
		got, _ := a.at(t, 1)
		if !slices.Contains(got, "b") {
			t.Fatal("a route is missing, and a does not send everything to b")
		}
		return slices.Equal(got, []string{"b"})
	})
	if took := time.Since(at); took > 5*time.Second { // about one, on a free machine
		t.Errorf("took %v", took)
	}
	testenv.Until(t, "b reports that pushes may be missing", func() bool { return b.missed.Load() == before+1 })
}

func TestRedisIsAwayAndComesBack(t *testing.T) {
	t.Parallel()
	r := testenv.StartRedis(t)
	a, b, _ := three(t, r.Config())
	r.Kill()
	a.until(t, "all servers are sent everything", 1, "b", "c")
	at := time.Now()
	for range 1000 {
		if got, complete := a.at(t, 1); len(got) != 2 || !complete {
			t.Fatalf("got %v, %v", got, complete)
		}
	}
	if took := time.Since(at); took > 5*time.Second {
		t.Errorf("1000 look-ups without Redis took %v", took)
	}
	b.Add(t.Context(), 1, 1) // cannot be written
	r.Start(t)
	a.until(t, "the route is written when Redis is back", 1, "b")
	testenv.Until(t, "b reports that pushes may be missing", func() bool { return b.missed.Load() > 0 })
}

// wire is a proxy between one server and Redis, which can be cut. Its mutex owns
// the connections.
type wire struct {
	net.Listener
	cut atomic.Bool

	mu    sync.Mutex
	conns []net.Conn
}

// wireTo starts a proxy to an address.
func wireTo(t *testing.T, address string) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{Listener: l}
	var copying sync.WaitGroup
	copying.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", address)
			if err != nil || w.cut.Load() {
				_ = in.Close()
				continue
			}
			w.mu.Lock()
			w.conns = append(w.conns, in, out)
			w.mu.Unlock()
			for _, pair := range [][2]net.Conn{{in, out}, {out, in}} {
				copying.Go(func() {
					_, _ = io.Copy(pair[0], pair[1])
					_ = pair[0].Close()
				})
			}
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		w.snap()
		copying.Wait()
	})
	return w
}

// snap cuts every connection.
func (w *wire) snap() {
	w.cut.Store(true)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		_ = c.Close()
	}
	w.conns = nil
}

// One server alone cannot reach Redis: the routes of its users stay as they were,
// and those of new users are missing.
func TestAServerThatAloneCannotReachRedisIsSentEverything(t *testing.T) {
	t.Parallel()
	r := testenv.StartRedis(t)
	w := wireTo(t, r.Addr)
	a, b := start(t, r.Config(), "a"), start(t, cache.Config{Addrs: []string{w.Addr().String()}}, "b")
	a.others = []string{"b"}
	a.until(t, "nobody is on b", 1)
	b.Add(t.Context(), 2, 20)
	before := b.missed.Load()
	w.snap()
	b.Add(t.Context(), 1, 10) // cannot be written
	at := time.Now()
	a.until(t, "a sends everything to b", 1, "b")
	testenv.Until(t, "b repairs what it missed until then", func() bool { return b.missed.Load() == before+1 })
	if took := time.Since(at); took > 15*time.Second { // about five, on a free machine
		t.Errorf("took %v, a heartbeat is 20s", took)
	}
	if got, _ := a.at(t, 1); !slices.Equal(got, []string{"b"}) {
		t.Errorf("b repaired too early: a sends to %v", got)
	}
	w.cut.Store(false)
	a.until(t, "b's routes are used again", 3)
	a.until(t, "the one that could not be written is there", 1, "b")
	testenv.Until(t, "b repairs once more when its routes are written", func() bool {
		return b.missed.Load() == before+2
	})
}

// A Redis that hangs costs each message little.
func TestRedisHangs(t *testing.T) {
	t.Parallel()
	r := testenv.StartRedis(t)
	a, b, _ := three(t, r.Config())
	b.Add(t.Context(), 1, 1)
	a.until(t, "a sends to b", 1, "b")
	r.Signal(t, syscall.SIGSTOP)
	at := time.Now()
	for range 1000 {
		if got, _ := a.at(t, 1); !slices.Contains(got, "b") {
			t.Fatalf("got %v", got)
		}
	}
	if took := time.Since(at); took > 5*time.Second {
		t.Errorf("1000 look-ups took %v", took)
	}
	r.Signal(t, syscall.SIGCONT)
	a.until(t, "a sends to b alone again", 1, "b")
}

// writes counts the commands that write a route.
type writes struct{ n atomic.Int64 }

func (*writes) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (*writes) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (w *writes) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, commands []redis.Cmder) error {
		for _, c := range commands {
			if c.Name() == "zadd" {
				w.n.Add(1)
			}
		}
		return next(ctx, commands)
	}
}

// A write to a Redis that does not answer may arrive long after its user has left.
// So nothing is written before Redis has answered a Ping.
func TestNothingIsWrittenToARedisThatDoesNotAnswer(t *testing.T) {
	r := testenv.StartRedis(t)
	a, _, _ := three(t, r.Config())
	w := &writes{}
	a.client.AddHook(w)
	a.Add(t.Context(), 1, 1)
	if w.n.Load() != 1 {
		t.Fatalf("%d writes of one route", w.n.Load())
	}
	r.Signal(t, syscall.SIGSTOP)
	before := a.failures(t)
	testenv.Until(t, "a has tried several times", func() bool { return a.failures(t) >= before+4 })
	if n := w.n.Load(); n != 1 {
		t.Errorf("%d routes were written to a Redis that does not answer", n-1)
	}
	r.Signal(t, syscall.SIGCONT)
	testenv.Until(t, "they are written when it answers", func() bool { return w.n.Load() > 1 })
}

func TestAServerThatStopsRemovesItsRoutes(t *testing.T) {
	t.Parallel()
	r := testenv.Redis(t)
	a, b, _ := three(t, r)
	const users = 1500 // more than one exchange removes
	for user := range uint64(users) {
		b.Add(t.Context(), user+100, 1)
	}
	for user := range uint64(users) {
		b.Remove(user+100, 1)
	}
	b.stop()
	if keys := testenv.RedisKeys(t, r, "route*"); len(keys) != 0 {
		t.Errorf("%d routes are left", len(keys))
	}
	if _, unlinked := a.Lookup(t.Context(), []uint64{100}, []string{"c"}); unlinked[100] {
		t.Error("a user still has a route to the server that stopped")
	}
}

// Users who left while Redis was away have no route afterwards.
func TestRoutesAreRemovedWhenRedisIsBack(t *testing.T) {
	t.Parallel()
	r := testenv.StartRedis(t)
	_, b, _ := three(t, r.Config())
	const users = 1200 // more than one exchange removes
	for user := range uint64(users) {
		b.Add(t.Context(), user+100, 1)
	}
	r.Signal(t, syscall.SIGSTOP) // it keeps what it has, as behind a link that is down
	for user := range uint64(users) {
		b.Remove(user+100, 1)
	}
	testenv.Until(t, "b tried", func() bool { return b.failures(t) > 0 })
	r.Signal(t, syscall.SIGCONT)
	testenv.Until(t, "all are removed", func() bool {
		return len(testenv.RedisKeys(t, r.Config(), "route:*")) == 0
	})
}
