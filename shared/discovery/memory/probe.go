package memory

import (
	"context"
	"net"
	"net/http"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/msrchat/msrchat/shared/discovery"
)

// prober runs the checks of one process. It belongs to one goroutine.
type prober struct {
	checks []discovery.Check
	http   http.Client
	grpc   map[string]*grpc.ClientConn // by address
}

func newProber(checks []discovery.Check) *prober {
	// Each request on a connection of its own, as Consul's: a server that drains is
	// not held open by its check.
	transport := &http.Transport{DisableKeepAlives: true}
	return &prober{checks: checks, http: http.Client{Transport: transport}, grpc: make(map[string]*grpc.ClientConn)}
}

func (p *prober) close() {
	for _, cc := range p.grpc {
		_ = cc.Close()
	}
}

// all says whether every check passes, within the time of one.
func (p *prober) all(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, discovery.CheckTimeout)
	defer cancel()
	for _, check := range p.checks {
		if !p.one(ctx, check) {
			return false
		}
	}
	return true
}

func (p *prober) one(ctx context.Context, check discovery.Check) bool {
	switch {
	case check.GRPC != "":
		return p.healthy(ctx, check.GRPC)
	case check.HTTP != "":
		return p.answers(ctx, check.HTTP)
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", check.TCP)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

// healthy asks host:port or host:port/service.
func (p *prober) healthy(ctx context.Context, target string) bool {
	address, service, _ := strings.Cut(target, "/")
	cc := p.grpc[address]
	if cc == nil {
		var err error
		cc, err = grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithConnectParams(grpc.ConnectParams{
				// A process that is back is noticed by the next check.
				Backoff:           backoff.Config{BaseDelay: startInterval, Multiplier: 1, MaxDelay: startInterval},
				MinConnectTimeout: discovery.CheckTimeout,
			}))
		if err != nil {
			return false
		}
		p.grpc[address] = cc
	}
	answer, err := healthv1.NewHealthClient(cc).Check(ctx, &healthv1.HealthCheckRequest{Service: service})
	return err == nil && answer.GetStatus() == healthv1.HealthCheckResponse_SERVING
}

func (p *prober) answers(ctx context.Context, url string) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return false
	}
	response, err := p.http.Do(request)
	if err != nil {
		return false
	}
	_ = response.Body.Close()
	return response.StatusCode/100 == 2
}
