package main

import (
	"fmt"
	"time"

	"github.com/urfave/cli/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	statusv1 "github.com/msrchat/msrchat/proto/msrchat/status/v1"
	"github.com/msrchat/msrchat/shared/discovery"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/status"
)

// replicaFlags say which replica is asked, and how the answer is printed.
func replicaFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "addr", Usage: "`HOST:PORT` of one replica's gRPC (default: any, found in Consul)"},
		&cli.StringFlag{Name: "consul-addr", Usage: "`HOST:PORT` of the Consul agent's HTTP API (default: as of status)"},
		&cli.DurationFlag{Name: "timeout", Value: 5 * time.Second, Usage: "how long to wait for the answer"},
		&cli.BoolFlag{Name: "json", Usage: "print JSON"},
	}
}

// replica is a connection to one replica, or to any.
type replica struct {
	statusv1.StatusServiceClient
	conn  *grpc.ClientConn
	where string // for errors
}

func dial(c *cli.Context) (*replica, error) {
	options := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	target := "passthrough:///" + c.String("addr")
	where := "the replica at " + c.String("addr")
	if c.String("addr") == "" {
		consulAddr := c.String("consul-addr")
		if consulAddr == "" {
			consulAddr = c.Lineage()[1].String("consul-addr")
		}
		consul, err := discovery.NewClient(consulAddr)
		if err != nil {
			return nil, err
		}
		target = discovery.Scheme + ":///" + status.ServiceName
		where = "a replica known to Consul at " + consulAddr
		options = append(options, discovery.DialOptions(consul)...)
	}
	conn, err := grpc.NewClient(target, options...)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", where, err)
	}
	return &replica{StatusServiceClient: statusv1.NewStatusServiceClient(conn), conn: conn, where: where}, nil
}

func (r *replica) Close() error { return r.conn.Close() }

// failed says what was asked for in vain.
func (r *replica) failed(err error) error {
	return fmt.Errorf("ask %s: %w", r.where, errs.FromGRPC(err))
}
