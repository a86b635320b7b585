package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/urfave/cli/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	statusv1 "github.com/msrchat/msrchat/proto/msrchat/status/v1"
	"github.com/msrchat/msrchat/shared/discovery"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/process"
	"github.com/msrchat/msrchat/status"
)

const fleetDescription = `Prints every chat server that a replica knows: what Consul says, what the server
last reported, and why it gets users or not. Asks any replica that passes its
checks in Consul, or the one at --addr.

With --json one object is printed: "instance" is the replica, "catalog_age_ms"
how old its view of Consul is (-1: it has none), "servers" the list. "load" is
null for a server that has not reported.`

func fleetCommand(stdout io.Writer, usage cli.OnUsageErrorFunc) *cli.Command {
	return &cli.Command{
		Name:         "fleet",
		Usage:        "shows the chat servers and why each gets users or not",
		Description:  fleetDescription,
		OnUsageError: usage,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "addr", Usage: "`HOST:PORT` of one replica's gRPC (default: any, found in Consul)"},
			&cli.StringFlag{Name: "consul-addr", Usage: "`HOST:PORT` of the Consul agent's HTTP API (default: as of status)"},
			&cli.DurationFlag{Name: "timeout", Value: 5 * time.Second, Usage: "how long to wait for the answer"},
			&cli.BoolFlag{Name: "json", Usage: "print JSON"},
		},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return process.Usage(fmt.Errorf("fleet takes no argument, got %q", c.Args().First()))
			}
			resp, err := askFleet(c)
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return printJSON(stdout, resp)
			}
			return printTable(stdout, resp)
		},
	}
}

// askFleet asks one replica.
func askFleet(c *cli.Context) (*statusv1.FleetResponse, error) {
	ctx, cancel := context.WithTimeout(c.Context, c.Duration("timeout"))
	defer cancel()
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
	defer conn.Close()
	resp, err := statusv1.NewStatusServiceClient(conn).Fleet(ctx, &statusv1.FleetRequest{})
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", where, errs.FromGRPC(err))
	}
	return resp, nil
}

// fleetJSON and serverJSON are what scripts get; their names do not change.
type fleetJSON struct {
	Instance     string       `json:"instance"`
	CatalogAgeMS int64        `json:"catalog_age_ms"`
	Servers      []serverJSON `json:"servers"`
}

type serverJSON struct {
	Instance           string    `json:"instance"`
	Address            string    `json:"address"`
	TLSServerName      string    `json:"tls_server_name"`
	RelayAddress       string    `json:"relay_address"`
	Release            string    `json:"release"`
	Zone               string    `json:"zone"`
	InCatalog          bool      `json:"in_catalog"`
	Passing            bool      `json:"passing"`
	Eligible           bool      `json:"eligible"`
	Reason             string    `json:"reason"`
	PendingAssignments uint32    `json:"pending_assignments"`
	ReportAgeMS        int64     `json:"report_age_ms"`
	Load               *loadJSON `json:"load"`
}

type loadJSON struct {
	Connections  uint32  `json:"connections"`
	Capacity     uint32  `json:"capacity"`
	SendRate     float64 `json:"send_rate"`
	QueueDelayMS float64 `json:"queue_delay_ms"`
	CPU          float64 `json:"cpu"`
	MemoryBytes  uint64  `json:"memory_bytes"`
	Draining     bool    `json:"draining"`
}

func printJSON(w io.Writer, resp *statusv1.FleetResponse) error {
	out := fleetJSON{Instance: resp.GetInstance(), CatalogAgeMS: resp.GetCatalogAgeMs(), Servers: []serverJSON{}}
	for _, s := range resp.GetServers() {
		server := serverJSON{
			Instance: s.GetEndpoint().GetInstance(), Address: s.GetEndpoint().GetAddress(),
			TLSServerName: s.GetEndpoint().GetTlsServerName(), RelayAddress: s.GetRelayAddress(),
			Release: s.GetRelease(), Zone: s.GetZone(), InCatalog: s.GetInCatalog(), Passing: s.GetPassing(),
			Eligible: s.GetEligible(), Reason: s.GetReason(),
			PendingAssignments: s.GetPendingAssignments(), ReportAgeMS: s.GetReportAgeMs(),
		}
		if l := s.GetLoad(); l != nil {
			server.Load = &loadJSON{
				Connections: l.GetConnections(), Capacity: l.GetCapacity(), SendRate: l.GetSendRate(),
				QueueDelayMS: l.GetQueueDelayMs(), CPU: l.GetCpu(), MemoryBytes: l.GetMemoryBytes(), Draining: l.GetDraining(),
			}
		}
		out.Servers = append(out.Servers, server)
	}
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(out)
}

func printTable(w io.Writer, resp *statusv1.FleetResponse) error {
	age := "it has not heard from Consul yet"
	if ms := resp.GetCatalogAgeMs(); ms >= 0 {
		age = fmt.Sprintf("heard from Consul %.1f s ago", float64(ms)/1000)
	}
	fmt.Fprintf(w, "replica %s, %s\n", clean(resp.GetInstance()), age)
	if len(resp.GetServers()) == 0 {
		fmt.Fprintln(w, "It knows no chat server. Is one running and registered as \"chat\" in Consul?")
		return nil
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "INSTANCE\tADDRESS\tRELEASE\tZONE\tCONSUL\tUSERS\tKEPT\tSENDS/S\tQUEUE\tCPU\tMEMORY\tREPORT\tGETS USERS")
	for _, s := range resp.GetServers() {
		consul := "absent"
		switch {
		case s.GetPassing():
			consul = "passing"
		case s.GetInCatalog():
			consul = "failing"
		}
		takes := "yes"
		if !s.GetEligible() {
			takes = "no: " + s.GetReason()
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n",
			clean(s.GetEndpoint().GetInstance()), clean(s.GetEndpoint().GetAddress()), clean(s.GetRelease()),
			clean(s.GetZone()), consul, loadColumns(s), clean(takes))
	}
	return tw.Flush()
}

// loadColumns are USERS to REPORT.
func loadColumns(s *statusv1.Server) string {
	l := s.GetLoad()
	if l == nil {
		return fmt.Sprintf("-\t%d\t-\t-\t-\t-\tnever", s.GetPendingAssignments())
	}
	return fmt.Sprintf("%d/%d\t%d\t%.0f\t%.0f ms\t%.2f\t%d MiB\t%.1f s",
		l.GetConnections(), l.GetCapacity(), s.GetPendingAssignments(), l.GetSendRate(), l.GetQueueDelayMs(),
		l.GetCpu(), l.GetMemoryBytes()>>20, float64(s.GetReportAgeMs())/1000)
}

// clean keeps what others named from moving the cursor; an empty cell is "-".
func clean(s string) string {
	if s == "" {
		return "-"
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}
