package service

import (
	"context"
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/stats"
	grpcstatus "google.golang.org/grpc/status"

	statusv1 "github.com/msrchat/msrchat/proto/msrchat/status/v1"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/status/internal/fleet"
)

// Metrics counts what the service does. It is also a grpc stats handler, which
// sees the calls that never reach a method: unknown ones, unreadable ones.
type Metrics struct {
	assignments *prometheus.CounterVec
	reports     *prometheus.CounterVec
	calls       *prometheus.CounterVec
	streams     prometheus.Gauge
}

// NewMetrics registers the metrics with reg; table and age are read when
// somebody asks.
func NewMetrics(reg prometheus.Registerer, table *fleet.Table, age func() (time.Duration, bool)) *Metrics {
	m := &Metrics{
		assignments: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "msrchat_status_assignments_total", Help: "Assignments by result: assigned, catalog_only, or an error code.",
		}, []string{"result"}),
		reports: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "msrchat_status_reports_total", Help: "Load reports by result: taken or refused.",
		}, []string{"result"}),
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "msrchat_status_calls_total", Help: "Finished gRPC calls by method and code.",
		}, []string{"method", "code"}),
		streams: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "msrchat_status_report_streams", Help: "Open report streams.",
		}),
	}
	catalogAge := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "msrchat_status_catalog_age_seconds", Help: "How long ago Consul last answered; +Inf if it never did.",
	}, func() float64 {
		if d, known := age(); known {
			return d.Seconds()
		}
		return math.Inf(1)
	})
	reg.MustRegister(m.assignments, m.reports, m.calls, m.streams, catalogAge, fleetCollector{table})
	return m
}

func (m *Metrics) assigned(a fleet.Assignment, err error) {
	result := "assigned"
	switch {
	case err != nil:
		result = string(errs.CodeOf(err))
	case a.CatalogOnly:
		result = "catalog_only"
	}
	m.assignments.WithLabelValues(result).Inc()
}

func (m *Metrics) reported(err error) {
	if err != nil {
		m.refused()
		return
	}
	m.reports.WithLabelValues("taken").Inc()
}

func (m *Metrics) refused() { m.reports.WithLabelValues("refused").Inc() }

type methodKey struct{}

// TagRPC remembers the method; everybody's invented names are one.
func (m *Metrics) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	method := "other"
	switch info.FullMethodName {
	case statusv1.StatusService_Assign_FullMethodName:
		method = "assign"
	case statusv1.StatusService_Fleet_FullMethodName:
		method = "fleet"
	case statusv1.StatusService_Report_FullMethodName:
		method = "report"
	case "/grpc.health.v1.Health/Watch", "/grpc.health.v1.Health/Check":
		method = "health"
	}
	return context.WithValue(ctx, methodKey{}, method)
}

// HandleRPC counts calls that ended.
func (m *Metrics) HandleRPC(ctx context.Context, s stats.RPCStats) {
	if end, ok := s.(*stats.End); ok {
		method, _ := ctx.Value(methodKey{}).(string)
		m.calls.WithLabelValues(method, grpcstatus.Code(end.Error).String()).Inc()
	}
}

// TagConn and HandleConn have nothing to count.
func (m *Metrics) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn has nothing to count.
func (m *Metrics) HandleConn(context.Context, stats.ConnStats) {}

// fleetCollector shows the table as it is when asked.
type fleetCollector struct{ table *fleet.Table }

var (
	serversDesc = prometheus.NewDesc("msrchat_status_servers",
		"Chat servers by state; eligible ones get users.", []string{"state"}, nil)
	pendingDesc = prometheus.NewDesc("msrchat_status_pending_assignments",
		"Places kept for users that were assigned and have not arrived.", nil, nil)
)

func (fleetCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- serversDesc
	ch <- pendingDesc
}

func (c fleetCollector) Collect(ch chan<- prometheus.Metric) {
	states, pending := map[fleet.State]int{}, 0
	for _, s := range c.table.View() {
		states[s.State]++
		pending += s.Pending
	}
	for _, state := range fleet.States {
		ch <- prometheus.MustNewConstMetric(serversDesc, prometheus.GaugeValue, float64(states[state]), string(state))
	}
	ch <- prometheus.MustNewConstMetric(pendingDesc, prometheus.GaugeValue, float64(pending))
}
