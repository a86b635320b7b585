package service

import (
	"errors"
	"io"
	"math"
	"net"
	"strings"
	"time"
	"unicode"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	statusv1 "github.com/msrchat/msrchat/proto/msrchat/status/v1"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/status/internal/fleet"
)

// MaxMessage is the largest request the service reads: a report with
// maxUsed assignments of usual length.
const MaxMessage = 1 << 20

const (
	// maxRate is how many reports a second one stream may send. Servers send up
	// to 20 while users arrive, and a connection that hung for some seconds
	// delivers them at once.
	maxRate = 500
	// maxUsed bounds the assignments in a report: ten times the logins that one
	// server can take in a second.
	maxUsed = 20_000
	// maxLabel bounds names: instance, release, zone, assignment.
	maxLabel = 128
	// maxAddress is a DNS name and a port.
	maxAddress = 261
)

type reportStream = grpc.BidiStreamingServer[statusv1.ReportRequest, statusv1.ReportResponse]

// Report takes a chat server's reports until it hangs up, sends none for
// IdleLimit, is replaced by a newer stream, or this replica closes.
func (s *Service) Report(stream reportStream) error {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		s.Metrics.refused()
		return errs.ToGRPC(errs.New(errs.CodeExhausted, "too many report streams").Retry(s.IdleLimit))
	}
	s.Metrics.streams.Inc()
	defer s.Metrics.streams.Dec()
	r := &reporter{service: s, stream: stream}
	err := r.run()
	if r.joined != nil {
		r.joined.Close()
		s.Log.Info("chat server stopped reporting", "server", r.instance, "err", err)
	} else if err != nil {
		s.Log.Debug("report stream refused", "err", err)
	}
	var ours *errs.Error
	if errors.As(err, &ours) {
		return errs.ToGRPC(ours)
	}
	return err // the stream's own, or nil
}

// reporter is one report stream. Its fields belong to the handler's goroutine.
// One more goroutine receives and one sends; both end with the handler, because
// gRPC then ends the stream's context.
type reporter struct {
	service  *Service
	stream   reportStream
	instance string
	joined   *fleet.Stream // nil before the first report

	second time.Time // when the current second of the rate limit began
	count  int       // reports in it
}

type received struct {
	req *statusv1.ReportRequest
	err error
}

func (r *reporter) run() error {
	reports := r.receive()
	orders := make(chan fleet.Order, 1)
	defer close(orders)
	go r.send(orders)
	idle := time.NewTimer(r.service.IdleLimit)
	defer idle.Stop()
	var replaced <-chan struct{}
	for {
		select {
		case in := <-reports:
			if errors.Is(in.err, io.EOF) {
				return nil
			}
			if in.err != nil {
				return in.err
			}
			order, err := r.take(in.req)
			r.service.Metrics.reported(order, err)
			if err != nil {
				return err
			}
			replaced = r.joined.Replaced()
			replace(orders, order)
			idle.Reset(r.service.IdleLimit)
		case <-r.stream.Context().Done():
			return grpcstatus.FromContextError(r.stream.Context().Err()).Err()
		case <-replaced:
			return errs.New(errs.CodeConflict, "a newer stream reports for this instance")
		case <-idle.C:
			return errs.New(errs.CodeUnavailable, "no report for %v", r.service.IdleLimit)
		case <-r.service.closing:
			return errs.New(errs.CodeUnavailable, "this status replica is shutting down")
		}
	}
}

// send sends the orders. A peer that does not read blocks this goroutine and not
// the handler.
func (r *reporter) send(orders <-chan fleet.Order) {
	for order := range orders {
		if r.stream.Send(&statusv1.ReportResponse{KeepAtMost: order.KeepAtMost}) != nil {
			return // the receiver sees the same
		}
	}
}

// replace replaces an order that was not sent yet: only the last one matters. The
// caller is the only sender on orders.
func replace(orders chan fleet.Order, order fleet.Order) {
	select {
	case <-orders:
	default:
	}
	orders <- order
}

// receive reads reports one at a time. The next one is read when the handler has
// taken the last, so that gRPC's flow control limits the sender.
func (r *reporter) receive() <-chan received {
	out := make(chan received)
	ctx := r.stream.Context()
	go func() {
		for {
			req, err := r.stream.Recv()
			// Not a message, or too large a one. gRPC has answered and ended the
			// stream's context.
			if code := grpcstatus.Code(err); code == codes.Internal || code == codes.ResourceExhausted {
				r.service.Metrics.refused()
			}
			select {
			case out <- received{req, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return out
}

// take checks a report and hands it to the table.
func (r *reporter) take(req *statusv1.ReportRequest) (fleet.Order, error) {
	if err := r.limit(time.Now()); err != nil {
		return fleet.Order{}, err
	}
	report, err := Parse(req)
	if err != nil {
		return fleet.Order{}, err
	}
	if r.joined != nil {
		return r.joined.Report(report)
	}
	joined, order, err := r.service.Table.Join(report)
	if err != nil {
		return fleet.Order{}, err
	}
	r.joined, r.instance = joined, report.Instance
	r.service.Log.Info("chat server reports", "server", report.Instance, "release", report.Release, "boot",
		report.BootID)
	return order, nil
}

// limit keeps one server from using up the CPU time of the others.
func (r *reporter) limit(now time.Time) error {
	if now.Sub(r.second) >= time.Second {
		r.second, r.count = now, 0
	}
	r.count++
	if r.count > maxRate {
		return errs.New(errs.CodeRateLimited, "more than %d reports a second", maxRate).Retry(time.Second)
	}
	return nil
}

// Parse checks a report. Its error is an *errs.Error with CodeInvalid and the
// field at fault.
func Parse(req *statusv1.ReportRequest) (fleet.Report, error) {
	invalid := func(field, format string, args ...any) (fleet.Report, error) {
		return fleet.Report{}, errs.New(errs.CodeInvalid, format, args...).In(field)
	}
	if req.GetInstance() == "" {
		return invalid("instance", "a report needs an instance")
	}
	for _, l := range [][2]string{
		{"instance", req.GetInstance()}, {"release", req.GetRelease()}, {"zone", req.GetZone()},
	} {
		if err := label(l[0], l[1]); err != nil {
			return fleet.Report{}, err
		}
	}
	at := req.GetEndpoint()
	if at.GetInstance() != "" && at.GetInstance() != req.GetInstance() {
		return invalid("endpoint", "the endpoint belongs to another instance")
	}
	address := at.GetAddress()
	if _, _, err := net.SplitHostPort(address); err != nil || len(address) > maxAddress || !printable(address) {
		return invalid("endpoint", "the endpoint's address is not host:port")
	}
	if len(at.GetTlsServerName()) > maxAddress || !printable(at.GetTlsServerName()) {
		return invalid("endpoint", "the endpoint's TLS server name is not a name")
	}
	load := req.GetLoad()
	if load == nil {
		return invalid("load", "a report needs a load")
	}
	for _, v := range []float64{load.GetSendRate(), load.GetQueueDelayMs(), load.GetCpu()} {
		if math.IsNaN(v) || math.IsInf(v, 0) || v < 0 {
			return invalid("load", "a value of the load is negative or not a number")
		}
	}
	if len(req.GetUsedAssignments()) > maxUsed {
		return invalid("used_assignments", "more than %d assignments in one report", maxUsed)
	}
	return fleet.Report{
		Instance: req.GetInstance(), BootID: req.GetBootId(), Release: req.GetRelease(), Zone: req.GetZone(),
		Address: address, TLSServerName: at.GetTlsServerName(), StartedAt: time.UnixMilli(req.GetStartedAtMs()),
		Load: fleet.Load{
			Connections: load.GetConnections(), Capacity: load.GetCapacity(), SendRate: load.GetSendRate(),
			QueueDelayMS: load.GetQueueDelayMs(), CPU: load.GetCpu(), MemoryBytes: load.GetMemoryBytes(),
			Draining: load.GetDraining(),
		},
		Used: req.GetUsedAssignments(),
	}, nil
}

// label checks a name that appears in tables and logs.
func label(field, s string) error {
	if len(s) > maxLabel || !printable(s) {
		return errs.New(errs.CodeInvalid, "%s is longer than %d bytes or not printable", field, maxLabel).In(field)
	}
	return nil
}

func printable(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) < 0
}
