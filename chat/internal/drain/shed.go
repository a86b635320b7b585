package drain

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"

	"github.com/msrchat/msrchat/chat/internal/conn"
)

const (
	// One in shedPart connections leaves per second at most, whatever status orders:
	// a wrong order does not empty a server before it can be taken back.
	shedPart = 20
	// shedSpread is the longest time between the Goodbye and the reconnect of a shed
	// client. Orders come once a second, so the reconnects are spread evenly.
	shedSpread = time.Second
)

// shedding limits the rate at which the server sheds connections. Its mutex owns the
// fields below it.
type shedding struct {
	total prometheus.Counter

	mu      sync.Mutex
	allowed float64 // connections that may leave now
	at      time.Time
}

func newShedding(reg prometheus.Registerer) shedding {
	total := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "msrchat_chat_shed_total", Help: "Connections asked to move to a server with more room.",
	})
	if reg != nil {
		reg.MustRegister(total)
	}
	return shedding{at: time.Now(), total: total}
}

// KeepAtMost obeys a status replica's order to shed connections. An order says how
// many may stay, so the orders of several replicas do not add up, and a repeated one
// does nothing. The oldest connections go first: a young one may come from a server
// that has just shed it.
func (d *Drain) KeepAtMost(n uint32) {
	d.shed.mu.Lock()
	defer d.shed.mu.Unlock()
	stay := slices.DeleteFunc(d.opts.Connections(), (*conn.Conn).Leaving) // after earlier orders
	excess := len(stay) - int(n)
	if excess <= 0 {
		return
	}
	slices.SortFunc(stay, func(a, b *conn.Conn) int { return cmp.Compare(a.ID(), b.ID()) })
	for _, c := range stay[:d.shed.allow(excess, len(stay), time.Now())] {
		if c.Age() < d.opts.Settled {
			return // those behind it are younger
		}
		d.shed.allowed--
		d.shed.total.Inc()
		c.Drain(d.Goodbye(chatv1.GoodbyeCode_GOODBYE_CODE_REBALANCE, "another server has more room", shedSpread))
	}
}

// allow returns how many of wanted connections may leave now, out of connected. It
// needs the lock.
func (s *shedding) allow(wanted, connected int, now time.Time) int {
	perSecond := max(float64(connected)/shedPart, 2)
	s.allowed = min(s.allowed+perSecond*now.Sub(s.at).Seconds(), perSecond)
	s.at = now
	return min(wanted, int(s.allowed))
}
