package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/msrchat/msrchat/tools/internal/fleet"
	"github.com/msrchat/msrchat/tools/internal/job"
)

func upgradeCommand() *cli.Command {
	return &cli.Command{
		Name: "upgrade", ArgsUsage: "SERVICE [VERSION]",
		Usage: "deploy another version of a service, and follow the deployment to its end",
		Description: `SERVICE is chat, gate or status. VERSION is

   nothing, or .      the working tree
   a git ref          a branch, tag or commit of this checkout, built from a copy
                      and kept for the next time
   a folder           programs that were built elsewhere: chat and probe, gate, or
                      status, and migrate if the schema has to be expanded

The schema is expanded first. Then the new instances start beside the old ones.
When all are healthy (for chat this includes the probes' proofs) they are
promoted, and the old ones drain and end. The variables of the running job stay,
its count too; --set changes them.

   ./justw upgrade chat v1.4.0
   ./justw upgrade chat --set drain=60s --set kill_timeout=90s
   ./justw upgrade chat HEAD~1 --set probe=false   # over a release that loses messages

On Ctrl-C the deployment goes on, and the commands to stop it are printed.

Exit codes: 0 only the new version runs, 1 failed, 2 wrong usage, 3 Nomad rolled
back to the previous version (the text names the failed check and its output),
130 interrupted.`,
		Flags: []cli.Flag{
			&cli.StringSliceFlag{
				Name:  "set",
				Usage: "set the job's variable `NAME=VALUE`; see nomad/SERVICE.nomad.hcl",
			},
			&cli.DurationFlag{
				Name: "timeout", Value: 20 * time.Minute,
				Usage: "stop following after `DURATION`; Nomad's own deadline is earlier",
			},
		},
		Action: with(func(ctx context.Context, c *cli.Context, f *fleet.Fleet) error {
			u := fleet.Upgrade{Limit: c.Duration("timeout"), Set: job.Vars{}}
			for _, assignment := range c.StringSlice("set") {
				name, value, ok := strings.Cut(assignment, "=")
				if !ok || name == "" {
					return usageError{fmt.Errorf("--set %q: NAME=VALUE is expected", assignment)}
				}
				u.Set[name] = value
			}
			switch args := c.Args(); {
			case args.Len() == 1 || args.Len() == 2:
				u.Service, u.Version = args.Get(0), args.Get(1)
			default:
				return usageError{fmt.Errorf("SERVICE and optionally VERSION are expected; see ./justw upgrade --help")}
			}
			return f.Upgrade(ctx, u)
		}),
	}
}

// flagsFirst moves the flags of the upgrade command before its arguments, because
// the parser accepts them only there and people write them after.
func flagsFirst(args []string) []string {
	at := -1
	for i, arg := range args {
		if arg == "upgrade" {
			at = i + 1
			break
		}
	}
	if at < 0 {
		return args
	}
	out := append([]string(nil), args[:at]...)
	var rest []string
	for i := at; i < len(args); i++ {
		switch arg := args[i]; {
		case arg == "--":
			return append(append(out, rest...), args[i:]...)
		case !strings.HasPrefix(arg, "-"):
			rest = append(rest, arg)
		case (arg == "--set" || arg == "--timeout" || arg == "-set" || arg == "-timeout") && i+1 < len(args):
			out = append(out, arg, args[i+1])
			i++
		default:
			out = append(out, arg)
		}
	}
	return append(out, rest...)
}
