package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	statusv1 "github.com/msrchat/msrchat/proto/msrchat/status/v1"
	"github.com/msrchat/msrchat/shared/process"
)

const explainDescription = `Without SERVER: how the next user would be assigned, or one with the given
preferences. Every server is listed in the order in which it would be taken, and
why; then those that get no users, and why. Nothing is assigned.

With SERVER (its instance, or a unique prefix of it): every rule with what it
decided from, whether the server gets users, and whether it has to shed
connections.

    status explain
    status explain --zone north --avoid chat-1
    status explain chat-2

Flags go before SERVER. Replicas may answer differently, because each has its own
reports; --addr asks a particular one.`

func explainCommand(stdout io.Writer, usage cli.OnUsageErrorFunc) *cli.Command {
	return &cli.Command{
		Name:         "explain",
		Usage:        "explain why a server would be assigned, or why not",
		ArgsUsage:    "[SERVER]",
		Description:  explainDescription,
		OnUsageError: usage,
		Flags: append(
			replicaFlags(),
			&cli.StringSliceFlag{
				Name:  "avoid",
				Usage: "`SERVER` that the user wants to avoid, as after a failure (repeatable)",
			},
			&cli.StringFlag{Name: "zone", Usage: "`ZONE` to prefer, as a gate does"},
		),
		Action: func(c *cli.Context) error {
			req, err := explainRequest(c)
			if err != nil {
				return process.Usage(err)
			}
			r, err := dial(c)
			if err != nil {
				return err
			}
			defer r.Close()
			ctx, cancel := context.WithTimeout(c.Context, c.Duration("timeout"))
			defer cancel()
			resp, err := r.Explain(ctx, req)
			if err != nil {
				return r.failed(err)
			}
			switch {
			case c.Bool("json"):
				return printJSON(stdout, explanationOf(resp))
			case req.GetInstance() != "":
				return printServer(stdout, resp)
			}
			return printAssignment(stdout, resp)
		},
	}
}

func explainRequest(c *cli.Context) (*statusv1.ExplainRequest, error) {
	switch {
	case c.NArg() > 1:
		return nil, fmt.Errorf("explain takes one server at most (flags go before it), got %q", c.Args().Slice())
	case c.NArg() == 1 && (c.IsSet("avoid") || c.IsSet("zone")):
		return nil, fmt.Errorf("--avoid and --zone are for an assignment, not for server %q", c.Args().First())
	case c.NArg() == 1:
		return &statusv1.ExplainRequest{Subject: &statusv1.ExplainRequest_Instance{Instance: c.Args().First()}}, nil
	}
	return &statusv1.ExplainRequest{Subject: &statusv1.ExplainRequest_Assignment{Assignment: &statusv1.AssignRequest{
		Avoid: c.StringSlice("avoid"), Zone: c.String("zone"),
	}}}, nil
}

// explanationJSON is for scripts; its names do not change.
type explanationJSON struct {
	Instance    string          `json:"instance"`
	Verdict     string          `json:"verdict"`
	CatalogOnly bool            `json:"catalog_only"`
	Candidates  []candidateJSON `json:"candidates"`
}

type candidateJSON struct {
	Instance string     `json:"instance"`
	Address  string     `json:"address"`
	Rank     uint32     `json:"rank"` // 0: not taken
	Why      string     `json:"why"`
	Rules    []ruleJSON `json:"rules"`
}

type ruleJSON struct {
	Name    string `json:"name"`
	Verdict string `json:"verdict"`
	Facts   string `json:"facts"`
}

// verdicts are the words for scripts and tables.
var verdicts = map[statusv1.Rule_Verdict]string{
	statusv1.Rule_VERDICT_HOLDS: "holds", statusv1.Rule_VERDICT_FAILS: "fails",
	statusv1.Rule_VERDICT_ORDERS: "orders", statusv1.Rule_VERDICT_SKIPPED: "skipped",
}

func explanationOf(e *statusv1.ExplainResponse) explanationJSON {
	out := explanationJSON{
		Instance: e.GetInstance(), Verdict: e.GetVerdict(), CatalogOnly: e.GetCatalogOnly(),
		Candidates: []candidateJSON{},
	}
	for _, c := range e.GetCandidates() {
		candidate := candidateJSON{
			Instance: c.GetEndpoint().GetInstance(), Address: c.GetEndpoint().GetAddress(),
			Rank: c.GetRank(), Why: c.GetWhy(),
		}
		for _, r := range c.GetRules() {
			candidate.Rules = append(candidate.Rules, ruleJSON{r.GetName(), verdicts[r.GetVerdict()], r.GetFacts()})
		}
		out.Candidates = append(out.Candidates, candidate)
	}
	return out
}

func printVerdict(w io.Writer, e *statusv1.ExplainResponse) {
	fmt.Fprintf(w, "%s (replica %s)\n", clean(e.GetVerdict()), clean(e.GetInstance()))
	if e.GetCatalogOnly() {
		fmt.Fprintln(w, "Consul's catalog alone decides: this replica cannot use reports at present.")
	}
}

// printAssignment lists the servers with their load.
func printAssignment(w io.Writer, e *statusv1.ExplainResponse) error {
	printVerdict(w, e)
	if len(e.GetCandidates()) == 0 {
		return nil
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "RANK\tINSTANCE\tADDRESS\tLOAD\tWHY")
	for _, c := range e.GetCandidates() {
		rank, load := "-", "-"
		if c.GetRank() > 0 {
			rank = fmt.Sprint(c.GetRank())
		}
		for _, r := range c.GetRules() {
			if r.GetName() == "has room" {
				load = r.GetFacts()
			}
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\n", rank, clean(c.GetEndpoint().GetInstance()),
			clean(c.GetEndpoint().GetAddress()), clean(load), clean(c.GetWhy()))
	}
	return tw.Flush()
}

func printServer(w io.Writer, e *statusv1.ExplainResponse) error {
	printVerdict(w, e)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "RULE\tVERDICT\tFACTS")
	for _, c := range e.GetCandidates() {
		for _, r := range c.GetRules() {
			fmt.Fprintf(tw, "%s\t%s\t%s\n", clean(r.GetName()), verdicts[r.GetVerdict()], clean(r.GetFacts()))
		}
	}
	return tw.Flush()
}
