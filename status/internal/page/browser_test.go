package page_test

import (
	"context"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	statusv1 "github.com/msrchat/msrchat/proto/msrchat/status/v1"
	"github.com/msrchat/msrchat/shared/errs"
)

// shots is for people who change the page: go test ./internal/page -shots FOLDER
var shots = flag.String("shots", "", "folder for screenshots of the page")

func TestAFleetInABrowser(t *testing.T) {
	f := everyState()
	f.Servers[2].Endpoint.Instance, f.Servers[2].Release, f.Servers[2].Zone = hostile, hostile, hostile
	f.Servers[3].Endpoint.Instance = "0f8fad5b-d9cb-469f-a165-70867728950e" // as under Nomad
	c := startChromium(t, serve(t, showing(f)))
	c.until(`document.querySelector("#link").innerText === "live"`)
	for selector, want := range map[string]string{
		"#connections": "49,218", "#capacity": "room for 72,800", "#sends": "2,472", "#assigned": "12",
		"#taking": "3", "#listed": "of 7 take users",
		"#balance": "Connections move to servers with more room: 4,822 to go.",
		"#replica": "Seen by status replica status-5e2a; its view of Consul is 1.8 s old.",
		// Number 1 sheds, 3 is hostile, 4 drains, 6 fails.
		"article:nth-child(1) .state": "sheds to 9,400", "article:nth-child(1) .users": "11,840 of 18,200",
		"article:nth-child(3) h3": hostile, "article:nth-child(3) .users": "4,578 of 18,200 + 310 on their way",
		"article:nth-child(4) h3": "0f8fad5b", "article:nth-child(4) .state": "draining",
		"article:nth-child(5) .state": "full", "article:nth-child(6) .state": "failing",
		"article:nth-child(6) .why":   "Gets no users: its check in Consul has failed for 7.0 s.",
		"article:nth-child(7) .state": "silent",
	} {
		if got := c.text(selector); got != want {
			t.Errorf("%s shows %q, want %q", selector, got, want)
		}
	}
	if c.js(`document.querySelectorAll("img, article script").length`) != 0.0 ||
		c.js("document.title") != "msrChat fleet" {
		t.Error("what a server reported about itself became a part of the page")
	}
	c.until(`document.querySelector("svg[data-of=sends] polyline").points.numberOfItems > 1`)
	for _, width := range []int{320, 768, 1280} {
		c.resize(width, 900, "light")
		c.until(fmt.Sprintf("window.innerWidth === %d", width))
		if got := c.js("document.documentElement.scrollWidth"); got != float64(width) {
			t.Errorf("%d pixels wide, %v are needed", width, got)
		}
	}
}

func TestNoServersInABrowser(t *testing.T) {
	empty := &statusv1.FleetResponse{Instance: "one", CatalogAgeMs: -1}
	c := startChromium(t, serve(t, showing(empty)))
	c.until(`document.querySelector("#link").innerText === "live"`)
	if got := c.text("#empty h2"); got != "No chat server yet" ||
		c.js(`document.querySelector("#totals").hidden`) != true {
		t.Errorf("it says %q", got)
	}
	if got := c.text("#replica"); got != "Seen by status replica one; Consul has not answered it yet." {
		t.Error(got)
	}
}

// The stream breaks, then watches are refused for a while, then a successor
// answers.
func TestARestartInABrowser(t *testing.T) {
	var calls, back atomic.Int32
	c := startChromium(t, serve(t, func(ctx context.Context, show func(*statusv1.FleetResponse) error) error {
		if calls.Add(1) == 1 {
			return errors.Join(show(everyState()), errs.New(errs.CodeUnavailable, "going away"))
		}
		if back.Load() == 0 {
			return errs.New(errs.CodeExhausted, "too many watch")
		}
		successor := &statusv1.FleetResponse{Instance: "successor", Servers: everyState().GetServers()[1:3]}
		return showing(successor)(ctx, show)
	}))
	c.until(`document.querySelector("#link").innerText.startsWith("reconnecting") &&
		document.body.hasAttribute("data-stale")`)
	if got := c.text("article:nth-child(1) h3"); got != "chat-1f3c" {
		t.Errorf("the servers are gone: %q", got)
	}
	back.Store(1)
	c.until(`document.querySelector("#link").innerText === "live" && !document.body.hasAttribute("data-stale")`)
	if n := c.js(`document.querySelectorAll("#servers article").length`); n != 2.0 ||
		c.text("article:nth-child(1) h3") != "chat-2a90" {
		t.Errorf("%v servers", n)
	}
}

func TestScreenshots(t *testing.T) {
	if *shots == "" {
		t.Skip("not run: no folder was given with -shots")
	}
	c := startChromium(t, serve(t, func(ctx context.Context, show func(*statusv1.FleetResponse) error) error {
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		for i := 0; ctx.Err() == nil; i++ {
			f := everyState()
			f.AssignRate += float64(5 * (i * i % 7))
			f.Servers[0].Load.SendRate += float64(40 * (i * i % 11))
			f.Servers[2].Load.Connections += uint32(90 * i)
			if err := show(f); err != nil {
				return err
			}
			select {
			case <-ticker.C:
			case <-ctx.Done():
			}
		}
		return nil
	}))
	c.until(`document.querySelector("svg[data-of=sends] polyline")?.points.numberOfItems > 50`)
	for _, size := range [][2]int{{1280, 920}, {320, 1900}} {
		for _, scheme := range []string{"light", "dark"} {
			c.resize(size[0], size[1], scheme)
			var shot struct{ Data string }
			c.call("Page.captureScreenshot", map[string]any{"format": "png"}, &shot)
			png, err := base64.StdEncoding.DecodeString(shot.Data)
			if err == nil {
				err = os.WriteFile(filepath.Join(*shots, fmt.Sprintf("%s-%d.png", scheme, size[0])), png, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}
