package discovery

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	_ "google.golang.org/grpc/health" // client-side health checking
	"google.golang.org/grpc/resolver"
)

// Scheme is the resolver's: consul:///NAME. With any catalog, because operators may
// have it in their settings.
const Scheme = "consul"

// ServiceConfig spreads calls over all instances and leaves out those that say
// NOT_SERVING on their connection, which is faster than the catalog's checks.
const ServiceConfig = `{"loadBalancingConfig":[{"round_robin":{}}],"healthCheckConfig":{"serviceName":""}}`

// DialOptions are what grpc.NewClient("consul:///NAME", ...) needs besides
// credentials: the resolver and ServiceConfig.
func DialOptions(catalog Catalog) []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithResolvers(NewResolver(catalog)),
		grpc.WithDefaultServiceConfig(ServiceConfig),
	}
}

// NewResolver returns a resolver of the catalog's services for grpc.WithResolvers. It
// resolves to the instances that pass their checks. When none does, it keeps the
// last ones that did and leaves the decision to the connections' own state, so
// that calls survive an agent whose checks are wrong for a moment.
func NewResolver(catalog Catalog) resolver.Builder {
	return builder{catalog: catalog}
}

type builder struct{ catalog Catalog }

func (builder) Scheme() string { return Scheme }

// Build starts a watch for one channel; gRPC closes it with the channel.
func (b builder) Build(
	target resolver.Target, cc resolver.ClientConn, _ resolver.BuildOptions,
) (resolver.Resolver, error) {
	service := target.Endpoint()
	if service == "" {
		return nil, errors.New("resolve: the target names no service, want consul:///NAME")
	}
	ctx, cancel := context.WithCancel(context.Background())
	w := &watching{cancel: cancel, ended: make(chan struct{}), cc: cc, service: service}
	watcher := NewWatcher(b.catalog, service, Options{OnlyPassing: true, OnError: w.failed})
	go func() {
		defer close(w.ended)
		_ = watcher.Run(ctx, w.update) // nil: ends with ctx
	}()
	return w, nil
}

// watching is the resolver of one channel. Its fields belong to the watch's
// goroutine.
type watching struct {
	cancel  context.CancelFunc
	ended   chan struct{}
	cc      resolver.ClientConn
	service string
	has     bool // the channel has addresses
}

func (w *watching) update(list []Instance) {
	if len(list) == 0 {
		w.failed(fmt.Errorf("no instance of %s passes its checks", w.service))
		return
	}
	addresses := make([]resolver.Address, len(list))
	for i, instance := range list {
		addresses[i] = resolver.Address{Addr: instance.Address}
	}
	// An error means that the balancer wants other addresses; there are none.
	if err := w.cc.UpdateState(resolver.State{Addresses: addresses}); err == nil {
		w.has = true
	}
}

// failed makes calls fail at once instead of waiting, as long as there was never
// an address.
func (w *watching) failed(err error) {
	if !w.has {
		w.cc.ReportError(err)
	}
}

// ResolveNow does nothing: the watch is always up to date.
func (w *watching) ResolveNow(resolver.ResolveNowOptions) {}

// Close ends the watch.
func (w *watching) Close() {
	w.cancel()
	<-w.ended
}
