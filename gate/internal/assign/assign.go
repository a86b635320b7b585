// Package assign asks status which chat server takes a user.
package assign

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	statusv1 "github.com/msrchat/msrchat/proto/msrchat/status/v1"
	"github.com/msrchat/msrchat/shared/errs"
)

// Client calls the status replicas. It is safe for concurrent use and does not
// own its connection.
type Client struct {
	status  statusv1.StatusServiceClient
	zone    string
	timeout time.Duration
	asked   *prometheus.CounterVec
}

// New returns a client whose metrics are registered with reg. Servers of zone
// are preferred. Each of the at most two attempts takes up to timeout.
func New(conn grpc.ClientConnInterface, zone string, timeout time.Duration, reg prometheus.Registerer) *Client {
	c := &Client{
		status: statusv1.NewStatusServiceClient(conn), zone: zone, timeout: timeout,
		asked: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "msrchat_gate_assignments_total",
			Help: "Requests for an assignment, by result: ok or the kind of failure.",
		}, []string{"result"}),
	}
	reg.MustRegister(c.asked)
	return c
}

// Assign returns the server that a user should connect to. avoid names instances
// that just failed for them. If all servers are full it is exhausted with a retry
// time; if none can be assigned it is unavailable.
func (c *Client) Assign(ctx context.Context, userID uint64, avoid []string) (*statusv1.Assignment, error) {
	req := &statusv1.AssignRequest{UserId: userID, Avoid: avoid, Zone: c.zone}
	got, err := c.ask(ctx, req, false)
	if errs.CodeOf(err) == errs.CodeUnavailable && ctx.Err() == nil {
		// The replica is gone, or all of them are restarting. The second
		// attempt goes to another one, or waits for one to come back.
		got, err = c.ask(ctx, req, true)
	}
	if err == nil && got.GetServer().GetAddress() == "" {
		err = errs.New(errs.CodeUnavailable, "status assigned no server")
	}
	if err != nil {
		c.asked.WithLabelValues(string(errs.CodeOf(err))).Inc()
		if errs.CodeOf(err) == errs.CodeUnavailable {
			err = errs.Wrap(errs.CodeUnavailable, err,
				"no chat server can be assigned at present; try again").Retry(time.Second)
		}
		return nil, fmt.Errorf("assign user %d: %w", userID, err)
	}
	c.asked.WithLabelValues("ok").Inc()
	return got, nil
}

func (c *Client) ask(ctx context.Context, req *statusv1.AssignRequest, wait bool) (*statusv1.Assignment, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	resp, err := c.status.Assign(ctx, req, grpc.WaitForReady(wait))
	if err != nil {
		return nil, errs.FromGRPC(err)
	}
	return resp.GetAssignment(), nil
}
