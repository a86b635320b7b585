package main

import (
	"fmt"
	"time"

	"github.com/urfave/cli/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	statusv1 "github.com/msrchat/msrchat/proto/msrchat/status/v1"
	"github.com/msrchat/msrchat/shared/discovery"
	"github.com/msrchat/msrchat/shared/discovery/consul"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/status"
)

// replicaFlags choose the replica and how its answer is printed.
func replicaFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "addr", Usage: "`HOST:PORT` of one replica's gRPC (default: any, found in Consul)"},
		&cli.StringFlag{
			Name:  "consul-addr",
			Usage: "`HOST:PORT` of the Consul agent's HTTP API (default: status' own)",
		},
		&cli.DurationFlag{Name: "timeout", Value: 5 * time.Second, Usage: "wait this `DURATION` for the answer"},
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
		catalog, err := consul.New(consulAddr)
		if err != nil {
			return nil, err
		}
		target = discovery.Scheme + ":///" + status.ServiceName
		where = "a replica registered in Consul at " + consulAddr
		options = append(options, discovery.DialOptions(catalog)...)
	}
	conn, err := grpc.NewClient(target, options...)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", where, err)
	}
	return &replica{StatusServiceClient: statusv1.NewStatusServiceClient(conn), conn: conn, where: where}, nil
}

func (r *replica) Close() error { return r.conn.Close() }

// failed says which replica did not answer.
func (r *replica) failed(err error) error {
	return fmt.Errorf("ask %s: %w", r.where, errs.FromGRPC(err))
}
