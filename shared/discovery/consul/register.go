package consul

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/msrchat/msrchat/shared/discovery"
	"github.com/msrchat/msrchat/shared/retry"
)

const (
	// reapAfter is the least that Consul accepts.
	reapAfter = time.Minute
	// upkeepInterval is how often we ask the agent whether it still has the
	// registration, and so how long one that lost its data stays wrong.
	upkeepInterval = 2 * time.Second
	// agentTimeout bounds one call to the agent on this machine.
	agentTimeout = 3 * time.Second
)

// Register registers the process with the agent and, until ctx ends, checks every
// two seconds that the agent still has the registration. If the agent does not
// answer now, it is tried again in the background; an error means that the
// registration is wrong or refused.
//
// The process calls deregister when it leaves, best before it stops serving; more
// than once does no harm. If it dies without, its checks turn critical within two
// seconds and Consul forgets it a minute later.
func (c *Catalog) Register(
	ctx context.Context, r discovery.Registration,
) (deregister func(ctx context.Context) error, err error) {
	k := &keeper{client: c.client, log: r.Log, ended: make(chan struct{})}
	if k.log == nil {
		k.log = slog.New(slog.DiscardHandler)
	}
	if k.service, err = service(r); err != nil {
		return nil, fmt.Errorf("register %s: %w", r.Service, err)
	}
	first := k.register(ctx)
	var refused api.StatusError
	if errors.As(first, &refused) && refused.Code >= 400 && refused.Code < 500 {
		return nil, fmt.Errorf("register %s: %w", r.Service, first)
	}
	if first != nil {
		k.log.Warn("registration in consul failed, trying again", "service", r.Service, "err", first)
	}
	ctx, k.cancel = context.WithCancel(ctx)
	go k.run(ctx, first == nil)
	return k.deregister, nil
}

// service validates the registration and translates it for Consul.
func service(r discovery.Registration) (*api.AgentServiceRegistration, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	host, portText, err := net.SplitHostPort(r.Address)
	if err != nil {
		return nil, err
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return nil, err
	}
	meta := maps.Clone(r.Meta)
	if meta == nil {
		meta = map[string]string{}
	}
	meta[discovery.MetaInstance] = r.Instance
	s := &api.AgentServiceRegistration{
		ID: r.ID(), Name: r.Service, Address: host, Port: port, Meta: meta,
	}
	for _, c := range r.Checks {
		s.Checks = append(s.Checks, &api.AgentServiceCheck{
			Name: c.Name, GRPC: c.GRPC, HTTP: c.HTTP, TCP: c.TCP,
			Interval:                       discovery.CheckInterval.String(),
			Timeout:                        discovery.CheckTimeout.String(),
			DeregisterCriticalServiceAfter: reapAfter.String(),
		})
	}
	return s, nil
}

// keeper keeps one registration alive. Its goroutine is run; deregister may be
// called from anywhere.
type keeper struct {
	client  *api.Client
	log     *slog.Logger
	service *api.AgentServiceRegistration

	cancel context.CancelFunc
	ended  chan struct{} // closed when run returned

	mu   sync.Mutex // owns gone, and makes one deregistration of many calls
	gone bool
}

func (k *keeper) register(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, agentTimeout)
	defer cancel()
	return k.client.Agent().ServiceRegisterOpts(k.service, api.ServiceRegisterOpts{}.WithContext(ctx))
}

// run keeps the registration until ctx ends.
func (k *keeper) run(ctx context.Context, well bool) {
	defer close(k.ended)
	for retry.Sleep(ctx, retry.Jitter(upkeepInterval)) {
		lost, err := k.lost(ctx)
		if lost && err == nil {
			if err = k.register(ctx); err == nil {
				k.log.Info("registered in consul again", "service", k.service.Name)
			}
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil && well {
			k.log.Warn("registration in consul not confirmed", "service", k.service.Name, "err", err)
		}
		well = err == nil
	}
}

// lost asks the agent whether it has lost the service.
func (k *keeper) lost(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, agentTimeout)
	defer cancel()
	_, _, err := k.client.Agent().Service(k.service.ID, (&api.QueryOptions{}).WithContext(ctx))
	return notFound(err), ignoreNotFound(err)
}

func (k *keeper) deregister(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.gone {
		return nil
	}
	// The upkeep has to end first, or it would register us again.
	k.cancel()
	<-k.ended
	q := (&api.QueryOptions{}).WithContext(ctx)
	if err := ignoreNotFound(k.client.Agent().ServiceDeregisterOpts(k.service.ID, q)); err != nil {
		return fmt.Errorf("deregister %s: %w", k.service.Name, err)
	}
	k.gone = true
	return nil
}

func notFound(err error) bool {
	var status api.StatusError
	return errors.As(err, &status) && status.Code == http.StatusNotFound
}

func ignoreNotFound(err error) error {
	if notFound(err) {
		return nil
	}
	return err
}
