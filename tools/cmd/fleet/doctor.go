package main

import (
	"context"
	"fmt"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/msrchat/msrchat/tools/internal/doctor"
	"github.com/msrchat/msrchat/tools/internal/fleet"
	"github.com/msrchat/msrchat/tools/nodes"
)

func doctorCommand() *cli.Command {
	return &cli.Command{
		Name: "doctor", Usage: "check the machine and the fleet, and say what to do; works with the fleet up or down",
		Description: "Each check is ok, warn, FAIL or not checked. Exit codes: 0 nothing failed, 1 a check failed.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "json", Usage: "print an array of objects: check, verdict, found, todo"},
		},
		Action: with(func(ctx context.Context, c *cli.Context, f *fleet.Fleet) error {
			report, err := f.Doctor(ctx)
			if err != nil {
				return err
			}
			write := report.WriteTable
			if c.Bool("json") {
				write = report.WriteJSON
			}
			if err := write(os.Stdout); err != nil {
				return err
			}
			if n := report.Count(doctor.Fail); n > 0 {
				return fmt.Errorf("%d checks failed", n)
			}
			return nil
		}),
	}
}

func nodesDownCommand() *cli.Command {
	return &cli.Command{
		Name: "nodes-down", Usage: "remove what a test of several nodes left behind",
		Hidden: true, // for the recipe
		Action: func(c *cli.Context) error {
			_, path, err := places(c)
			if err != nil {
				return err
			}
			return nodes.Down(c.Context, nodes.Folder(path))
		},
	}
}
