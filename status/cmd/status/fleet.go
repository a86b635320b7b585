package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/urfave/cli/v2"

	statusv1 "github.com/msrchat/msrchat/proto/msrchat/status/v1"
	"github.com/msrchat/msrchat/shared/process"
	"github.com/msrchat/msrchat/status/internal/snapshot"
)

const fleetDescription = `Prints every chat server that a replica knows: what Consul says, what the server
last reported, and why it gets users or not. Asks any replica that passes its
checks in Consul, or the one at --addr.

USERS are the connections and the capacity, SHARE is the fair share of the
connections, PENDING are users who were assigned and have not arrived. "sheds"
after the share of a server means that it has an order to move connections away.

--watch goes on until Ctrl-C and prints the fleet whenever it changed, at most
once a second; on a terminal in place. If the replica ends, another one is asked.

With --json one object is printed (with --watch one a line): "instance" is the
replica, "catalog_age_ms" how old its view of Consul is (-1: it has none),
"assign_rate" its assignments per second, "balance" whether connections are moved
("state" is even, moving or held), "servers" the list. "load" is null for a
server that has not reported.`

func fleetCommand(stdout, stderr io.Writer, usage cli.OnUsageErrorFunc) *cli.Command {
	return &cli.Command{
		Name:         "fleet",
		Usage:        "show the chat servers and why each gets users or not",
		Description:  fleetDescription,
		OnUsageError: usage,
		Flags:        append(replicaFlags(), &cli.BoolFlag{Name: "watch", Usage: "go on until Ctrl-C"}),
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return process.Usage(fmt.Errorf("fleet takes no argument, got %q", c.Args().First()))
			}
			r, err := dial(c)
			if err != nil {
				return err
			}
			defer r.Close()
			if c.Bool("watch") {
				return watch(c, r, stdout, stderr)
			}
			ctx, cancel := context.WithTimeout(c.Context, c.Duration("timeout"))
			defer cancel()
			resp, err := r.Fleet(ctx, &statusv1.FleetRequest{})
			if err != nil {
				return r.failed(err)
			}
			if c.Bool("json") {
				return printJSON(stdout, snapshot.Of(resp))
			}
			return printTable(stdout, resp)
		},
	}
}

func printJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}

func printTable(w io.Writer, resp *statusv1.FleetResponse) error {
	age := "Consul has not answered yet"
	if ms := resp.GetCatalogAgeMs(); ms >= 0 {
		age = fmt.Sprintf("Consul answered %.1f s ago", float64(ms)/1000)
	}
	fmt.Fprintf(w, "replica %s, %s, %.1f assignments/s\n", clean(resp.GetInstance()), age, resp.GetAssignRate())
	if len(resp.GetServers()) == 0 {
		fmt.Fprintln(w, "There is no chat server. Is one running and registered as \"chat\" in Consul?")
		return nil
	}
	fmt.Fprintf(w, "balance %s: %s\n", snapshot.Of(resp).Balance.State, clean(resp.GetBalance().GetText()))
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "INSTANCE\tADDRESS\tRELEASE\tZONE\tCONSUL\tUSERS\tSHARE\tPENDING\t"+
		"SENDS/S\tQUEUE\tCPU\tMEMORY\tREPORT\tGETS USERS")
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
		return fmt.Sprintf("-\t-\t%d\t-\t-\t-\t-\tnever", s.GetPendingAssignments())
	}
	share := "-"
	if s.GetFairShare() > 0 {
		share = fmt.Sprintf("%.0f", s.GetFairShare())
	}
	if s.GetKeepAtMost() > 0 {
		share += " sheds"
	}
	return fmt.Sprintf("%d/%d\t%s\t%d\t%.0f\t%.0f ms\t%.2f\t%d MiB\t%.1f s",
		l.GetConnections(), l.GetCapacity(), share, s.GetPendingAssignments(), l.GetSendRate(), l.GetQueueDelayMs(),
		l.GetCpu(), l.GetMemoryBytes()>>20, float64(s.GetReportAgeMs())/1000)
}

// clean removes what could control the terminal from a name that a server chose;
// an empty cell is "-".
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
