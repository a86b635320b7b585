// Package service answers status.v1 over gRPC from a fleet table.
package service

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	statusv1 "github.com/msrchat/msrchat/proto/msrchat/status/v1"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/status/internal/fleet"
)

const (
	// readyWait is how long an assignment waits on a new replica for Consul's
	// first answer, which takes milliseconds.
	readyWait = 2 * time.Second
	// maxAvoid bounds the list of a request; a client has tried a few servers.
	maxAvoid = 100
	// maxStreams bounds the open report streams: a fleet is some hundred
	// servers, one stream each.
	maxStreams = 4096
)

// Config is what a Service needs.
type Config struct {
	Instance string // this replica's name
	Table    *fleet.Table
	// CatalogAge is how long ago Consul answered; false if it never did.
	CatalogAge func() (time.Duration, bool)
	// IdleLimit closes a report stream without a report. Servers report every
	// second.
	IdleLimit time.Duration
	Metrics   *Metrics
	Log       *slog.Logger
}

// Service implements statusv1.StatusServiceServer; safe for concurrent use.
type Service struct {
	statusv1.UnimplementedStatusServiceServer
	Config

	feed    feed
	slots   chan struct{} // one entry per open report stream
	closing chan struct{} // closed by Close
	once    sync.Once
}

// New returns a service.
func New(cfg Config) *Service {
	s := &Service{Config: cfg, slots: make(chan struct{}, maxStreams), closing: make(chan struct{})}
	s.feed = feed{snapshot: s.snapshot, watchers: map[chan *statusv1.FleetResponse]struct{}{}}
	return s
}

// Run feeds the watches of the fleet until ctx ends.
func (s *Service) Run(ctx context.Context) error { return s.feed.run(ctx) }

// Close ends the report streams and the watches, which never end by themselves,
// so that their clients go to another replica.
func (s *Service) Close() { s.once.Do(func() { close(s.closing) }) }

// Assign picks a chat server. It blocks only until the catalog is first known.
func (s *Service) Assign(ctx context.Context, req *statusv1.AssignRequest) (*statusv1.AssignResponse, error) {
	a, err := s.assign(ctx, req)
	s.Metrics.assigned(a, err)
	if err != nil {
		return nil, errs.ToGRPC(err)
	}
	out := &statusv1.Assignment{
		Id: a.ID, Server: endpoint(a.Server), ExpiresAtMs: a.Expires.UnixMilli(),
		DecidedBy: s.Instance, CatalogOnly: a.CatalogOnly,
	}
	for _, alternate := range a.Alternates {
		out.Alternates = append(out.Alternates, endpoint(alternate))
	}
	return &statusv1.AssignResponse{Assignment: out}, nil
}

func (s *Service) assign(ctx context.Context, req *statusv1.AssignRequest) (fleet.Assignment, error) {
	if err := checkAssign(req); err != nil {
		return fleet.Assignment{}, err
	}
	wait := time.NewTimer(readyWait)
	defer wait.Stop()
	select {
	case <-s.Table.Ready():
	case <-wait.C: // the table says that it is not ready
	case <-ctx.Done():
	}
	return s.Table.Assign(fleet.Request{Avoid: req.GetAvoid(), Zone: req.GetZone()})
}

func checkAssign(req *statusv1.AssignRequest) error {
	if len(req.GetAvoid()) > maxAvoid {
		return errs.New(errs.CodeInvalid, "avoid names more than %d servers", maxAvoid).In("avoid")
	}
	return label("zone", req.GetZone())
}

// Unknown answers calls of methods that do not exist. gRPC would answer them too,
// but the metrics would not count them.
func Unknown(any, grpc.ServerStream) error {
	return grpcstatus.Error(codes.Unimplemented, "there is no such method here")
}

func endpoint(e fleet.Endpoint) *chatv1.Endpoint {
	return &chatv1.Endpoint{Instance: e.Instance, Address: e.Address, TlsServerName: e.TLSServerName}
}
