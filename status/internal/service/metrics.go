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

// Metrics counts what the service does. It is also a gRPC stats handler, which
// sees the calls that never reach a method: unknown and unreadable ones.
type Metrics struct {
	assignments *prometheus.CounterVec
	reports     *prometheus.CounterVec
	calls       *prometheus.CounterVec
	streams     prometheus.Gauge
	watchers    prometheus.Gauge
	orders      prometheus.Counter
}

// NewMetrics registers the metrics with reg; table and age are read at each
// scrape.
func NewMetrics(reg prometheus.Registerer, table *fleet.Table, age func() (time.Duration, bool)) *Metrics {
	m := &Metrics{
		assignments: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "msrchat_status_assignments_total",
			Help: "Requests for an assignment by result: assigned, catalog_only, or an error code.",
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
		watchers: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "msrchat_status_watchers", Help: "Open watches of the fleet, those of the live page included.",
		}),
		orders: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "msrchat_status_orders_total", Help: "Orders to shed connections, repetitions included.",
		}),
	}
	catalogAge := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "msrchat_status_catalog_age_seconds", Help: "Time since Consul last answered; +Inf if it never did.",
	}, func() float64 {
		if d, known := age(); known {
			return d.Seconds()
		}
		return math.Inf(1)
	})
	reg.MustRegister(m.assignments, m.reports, m.calls, m.streams, m.watchers, m.orders, catalogAge,
		fleetCollector{table})
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

func (m *Metrics) reported(order fleet.Order, err error) {
	if err != nil {
		m.refused()
		return
	}
	if order.KeepAtMost > 0 {
		m.orders.Inc()
	}
	m.reports.WithLabelValues("taken").Inc()
}

func (m *Metrics) refused() { m.reports.WithLabelValues("refused").Inc() }

type methodKey struct{}

// TagRPC remembers the method; all unknown ones are "other", to bound the labels.
func (m *Metrics) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	method := "other"
	switch info.FullMethodName {
	case statusv1.StatusService_Assign_FullMethodName:
		method = "assign"
	case statusv1.StatusService_Fleet_FullMethodName:
		method = "fleet"
	case statusv1.StatusService_WatchFleet_FullMethodName:
		method = "watch_fleet"
	case statusv1.StatusService_Explain_FullMethodName:
		method = "explain"
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

// fleetCollector reads the table at each scrape.
type fleetCollector struct{ table *fleet.Table }

var (
	serversDesc = prometheus.NewDesc("msrchat_status_servers",
		"Chat servers by state; eligible ones get users.", []string{"state"}, nil)
	pendingDesc = prometheus.NewDesc("msrchat_status_pending_assignments",
		"Assignments whose users have not arrived yet.", nil, nil)
	toMoveDesc = prometheus.NewDesc("msrchat_status_connections_to_move",
		"Connections above the fair share of their servers, while those have orders to shed.", nil, nil)
	movesHeldDesc = prometheus.NewDesc("msrchat_status_moves_held",
		"1 if no connection is moved even if the load is uneven: during a deployment, or without reports.", nil, nil)
)

func (fleetCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- serversDesc
	ch <- pendingDesc
	ch <- toMoveDesc
	ch <- movesHeldDesc
}

func (c fleetCollector) Collect(ch chan<- prometheus.Metric) {
	states, pending := map[fleet.State]int{}, 0
	view := c.table.View()
	for _, s := range view.Servers {
		states[s.State]++
		pending += s.Pending
	}
	for _, state := range fleet.States {
		ch <- prometheus.MustNewConstMetric(serversDesc, prometheus.GaugeValue, float64(states[state]), string(state))
	}
	ch <- prometheus.MustNewConstMetric(pendingDesc, prometheus.GaugeValue, float64(pending))
	held := 0.0
	if view.Balance.State == fleet.BalanceHeld {
		held = 1
	}
	ch <- prometheus.MustNewConstMetric(toMoveDesc, prometheus.GaugeValue, float64(view.Balance.ToMove))
	ch <- prometheus.MustNewConstMetric(movesHeldDesc, prometheus.GaugeValue, held)
}
