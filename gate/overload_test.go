package gate_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/msrchat/msrchat/gate"
	statusv1 "github.com/msrchat/msrchat/proto/msrchat/status/v1"
	"github.com/msrchat/msrchat/shared/cache"
	"github.com/msrchat/msrchat/shared/errs"
)

// later says whether an answer is a refusal with a retry time.
func later(r reply, status int, code errs.Code) bool {
	p := r.problem()
	return r.status == status && p.Code == code && p.RetryAfterMS > 0 && r.header.Get("Retry-After") != ""
}

// A flood of code requests from one network, each for another address, costs
// only as many mails and keys in Redis as the limit allows.
func TestAFloodOfCodeRequests(t *testing.T) {
	const flood, most = 200, 10
	h := open(t, func(c *gate.Config) {
		c.Codes.PerClient = gate.Limit{Count: most, Per: time.Hour}
		c.Codes.Pause, c.Codes.PerAddress = time.Minute, gate.Limit{Count: 3, Per: time.Hour}
	})
	var sent, refused atomic.Int64
	ask := func(i int) {
		body := encode(t, map[string]string{"email": fmt.Sprintf("u%d@example.org", i), "purpose": "register"})
		switch r, err := h.try(http.MethodPost, "/v1/codes", "", body); {
		case err != nil:
			t.Error(err)
		case r.status == http.StatusAccepted:
			sent.Add(1)
		case later(r, http.StatusTooManyRequests, errs.CodeRateLimited):
			refused.Add(1)
		default:
			t.Errorf("%d %s", r.status, r.body)
		}
	}
	const workers = 8
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for i := w; i < flood; i += workers {
				ask(i)
			}
		})
	}
	all.Wait()
	allowed := int64(most)
	if h.metric("msrchat_gate_limit_fallbacks_total") > 0 {
		allowed *= 2 // Redis was too slow to answer, and the process counted too
	}
	if sent.Load() < most || sent.Load() > allowed || sent.Load()+refused.Load() != flood {
		t.Errorf("%d sent, %d refused", sent.Load(), refused.Load())
	}
	h.eventually("all mails are out", func() bool { return h.metric("msrchat_gate_mail_queue") == 0 })
	if n := h.metric(`msrchat_gate_mails_total{result="sent"}`); n != float64(sent.Load()) {
		t.Errorf("%v mails for %d codes", n, sent.Load())
	}
	rdb, err := cache.Open(h.cfg.Redis)
	if err != nil {
		t.Fatal(err)
	}
	defer rdb.Close()
	// One key for the network and one of the readiness, and for each address a code, a
	// pause and a count.
	if n := rdb.DBSize(t.Context()).Val(); n == 0 || n > 2+sent.Load()*3 {
		t.Errorf("%d keys in Redis", n)
	}
}

// More requests than may be worked on at once are refused with a retry time.
// Health checks are answered, and afterwards requests are served again.
func TestMoreRequestsThanAreWorkedOnAtOnce(t *testing.T) {
	const most, crowd = 3, 30 // those of the crowd all come from elsewhere
	h := open(t, func(c *gate.Config) {
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		c.HTTP.MaxRequests = most
		c.StatusTimeout = 30 * time.Second
		c.HTTP.RequestTimeout = time.Minute
	})
	token := h.register("ann").Token
	hold := make(chan struct{})
	h.status.set(func(*statusv1.AssignRequest) (*statusv1.Assignment, error) {
		<-hold
		return nil, errs.New(errs.CodeExhausted, "every chat server is full").Retry(2 * time.Second)
	})
	var full, refused atomic.Int64
	var all sync.WaitGroup
	for i := range crowd {
		one := *h
		one.from = fmt.Sprintf("203.0.113.%d", i)
		all.Go(func() {
			switch r, err := one.try(http.MethodPost, "/v1/assignments", token, "{}"); {
			case err != nil:
				t.Error(err)
			case !later(r, http.StatusServiceUnavailable, errs.CodeExhausted):
				t.Errorf("%d %s", r.status, r.body)
			case strings.Contains(r.body, "chat server is full"):
				full.Add(1)
			default:
				refused.Add(1)
			}
		})
	}
	h.eventually("all but a few were sent away", func() bool { return refused.Load() == crowd-most })
	if n := h.metric("msrchat_gate_requests "); n != most {
		t.Errorf("%v are worked on", n)
	}
	if r := h.get("/readyz"); r.status != http.StatusOK {
		t.Errorf("not ready under overload: %d", r.status)
	}
	close(hold)
	all.Wait()
	if full.Load() != most || h.metric("msrchat_gate_overloaded_total") != crowd-most {
		t.Errorf("%d were answered, %v counted as refused", full.Load(), h.metric("msrchat_gate_overloaded_total"))
	}
	h.status.set(nil)
	if r := h.do(http.MethodPost, "/v1/assignments", token, "{}"); r.status != http.StatusOK {
		t.Errorf("afterwards: %d %s", r.status, r.body)
	}
}
