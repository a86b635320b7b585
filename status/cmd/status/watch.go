package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/urfave/cli/v2"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	statusv1 "github.com/msrchat/msrchat/proto/msrchat/status/v1"
	"github.com/msrchat/msrchat/shared/retry"
	"github.com/msrchat/msrchat/status/internal/snapshot"
)

// watchAgain is the pause before another replica is asked, after one ended.
const watchAgain = time.Second

// watch prints the fleet whenever it changed, until the command is interrupted.
// It fails only if it gets no first snapshot.
func watch(c *cli.Context, r *replica, stdout, stderr io.Writer) error {
	show := showTable(stdout)
	if c.Bool("json") {
		encoder := json.NewEncoder(stdout)
		show = func(f *statusv1.FleetResponse) error { return encoder.Encode(snapshot.Of(f)) }
	}
	seen := false
	for {
		err := watchOnce(c, r, func(f *statusv1.FleetResponse) error {
			seen = true
			return show(f)
		})
		switch {
		case c.Context.Err() != nil:
			return nil //nolint:nilerr // interrupted
		case !seen:
			return r.failed(err)
		case grpcstatus.Code(err) == codes.Unknown:
			return err // of our own printing
		}
		fmt.Fprintf(stderr, "%v; asking again\n", r.failed(err))
		retry.Sleep(c.Context, watchAgain)
	}
}

// watchOnce watches one replica. The first snapshot has to come within the
// timeout, each further one within three times keepAlive.
func watchOnce(c *cli.Context, r *replica, show func(*statusv1.FleetResponse) error) error {
	ctx, cancel := context.WithCancelCause(c.Context)
	defer cancel(nil)
	limit := max(c.Duration("timeout"), 3*time.Second)
	silent := time.AfterFunc(limit, func() { cancel(errors.New("it sends nothing")) })
	defer silent.Stop()
	stream, err := r.WatchFleet(ctx, &statusv1.WatchFleetRequest{})
	for err == nil {
		var f *statusv1.WatchFleetResponse
		if f, err = stream.Recv(); err != nil {
			break
		}
		silent.Reset(max(limit, 3*keepAlive))
		err = show(f.GetFleet())
	}
	if cause := context.Cause(ctx); cause != nil && c.Context.Err() == nil {
		return grpcstatus.Error(codes.DeadlineExceeded, cause.Error())
	}
	return err
}

// keepAlive is how often a replica sends a fleet that does not change.
const keepAlive = 5 * time.Second

// showTable prints tables one below the other, on a terminal in place.
func showTable(w io.Writer) func(*statusv1.FleetResponse) error {
	before := ""
	if terminal(w) {
		before = "\x1b[H\x1b[2J" // home, and clear
	}
	return func(f *statusv1.FleetResponse) error {
		var table bytes.Buffer // written at once, so that it does not flicker
		table.WriteString(before)
		if err := printTable(&table, f); err != nil {
			return err
		}
		if before == "" {
			table.WriteString("\n")
		}
		_, err := table.WriteTo(w)
		return err
	}
}

func terminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
