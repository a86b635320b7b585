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
	// shedPart of the connections leaves per second at most, whatever status
	// says: an order that is wrong then empties nobody's server at once, and can
	// be taken back.
	shedPart = 20
	// shedSpread is within how long after its Goodbye a shed client returns:
	// orders come once a second, arrivals are then even.
	shedSpread = time.Second
)

// shedding is the pace at which the server gives connections away to even the
// load. Its mutex owns the fields below it.
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

// KeepAtMost obeys a status replica's order to shed connections. It names what
// may stay, so that several replicas' orders do not add up, and a repeated one
// does nothing. The longest connected go first: those that came lately may have
// come from a server that sent them away.
func (d *Drain) KeepAtMost(n uint32) {
	d.shed.mu.Lock()
	defer d.shed.mu.Unlock()
	stay := slices.DeleteFunc(d.opts.Connections(), (*conn.Conn).Leaving) // those by an earlier order
	excess := len(stay) - int(n)
	if excess <= 0 {
		return
	}
	slices.SortFunc(stay, func(a, b *conn.Conn) int { return cmp.Compare(a.ID(), b.ID()) })
	for _, c := range stay[:d.shed.allow(excess, len(stay), time.Now())] {
		if c.Age() < d.opts.Settled {
			return // and so are those behind it
		}
		d.shed.allowed--
		d.shed.total.Inc()
		c.Drain(d.Goodbye(chatv1.GoodbyeCode_GOODBYE_CODE_REBALANCE, "another server has more room", shedSpread))
	}
}

// allow returns how many of the wanted may leave now, with so many connected. It
// needs the lock.
func (s *shedding) allow(wanted, connected int, now time.Time) int {
	perSecond := max(float64(connected)/shedPart, 2)
	s.allowed = min(s.allowed+perSecond*now.Sub(s.at).Seconds(), perSecond)
	s.at = now
	return min(wanted, int(s.allowed))
}
