package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/msrchat/msrchat/shared/database"
	"github.com/msrchat/msrchat/shared/process"
	"github.com/msrchat/msrchat/shared/testenv"

	"github.com/msrchat/msrchat/bench/dial"
	"github.com/msrchat/msrchat/bench/flood"
	"github.com/msrchat/msrchat/bench/floor"
	"github.com/msrchat/msrchat/bench/load"
	"github.com/msrchat/msrchat/bench/proc"
	"github.com/msrchat/msrchat/bench/report"
	"github.com/msrchat/msrchat/bench/users"
)

// The program starts itself again as a floor or an attacker, here the test's binary.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == floor.Command || os.Args[1] == flood.Command) {
		os.Exit(run(context.Background(), os.Args))
	}
	os.Exit(m.Run())
}

func TestAFloorRunsInAProcessThatIsMeasuredAndLeavesNothing(t *testing.T) {
	cfg := testenv.MariaDB(t)
	child, err := floor.Start(t.Context(), floor.DB0, cfg)
	if err != nil {
		t.Fatal(err)
	}
	dialer := dial.New(nil)
	defer dialer.Keeper.Close()
	var set proc.Set
	set.Add(proc.Process{Name: groupFloor, PID: child.PID})
	before := set.Snapshot()
	settings := load.Config{Clients: 4, Window: 2, MinSize: 10, MaxSize: 10, Duration: 200e6, Settle: testenv.Patience}
	result, err := load.Run(t.Context(), settings, users.Floor{Address: child.Addr, Dialer: dialer}, load.Hooks{})
	if err != nil {
		t.Fatal(err)
	}
	if result.Delivered == 0 || result.Delivered != result.Sent {
		t.Errorf("got %+v", result)
	}
	for _, f := range loadFigures(result, &set, before, set.Snapshot()) {
		if f.Key == "cpu_s_per_million" && f.Absent {
			t.Error("the child's CPU was not measured")
		}
	}
	if err := child.Stop(); err != nil {
		t.Error(err)
	}
	if _, err := testenv.Open(t, cfg).ExecContext(t.Context(), "SELECT 1 FROM bench_floor_db0"); err == nil {
		t.Error("its table is still there")
	}
}

func TestAFloorWithoutItsDatabaseDoesNotStart(t *testing.T) {
	nowhere := database.Config{Addr: "127.0.0.1:" + strconv.Itoa(testenv.FreePort(t)), User: "nobody", Name: "none"}
	if child, err := floor.Start(t.Context(), floor.Schema, nowhere); err == nil {
		t.Errorf("without a database it runs: %+v", child)
	}
}

func TestAnAttackRunsInAProcessAndCounts(t *testing.T) {
	var logIns, said atomic.Int64
	gate := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		logIns.Add(1)
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer gate.Close()
	chat, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer chat.Close()
	go func() {
		for nc, err := chat.Accept(); err == nil; nc, err = chat.Accept() {
			said.Add(1)
			_ = nc.Close()
		}
	}()
	attack, err := flood.Start(t.Context(), flood.Order{
		Plan:    flood.Plan{Accounts: 2, Readers: 2, Slow: 2, Silent: 5, Sources: 3, Again: time.Millisecond},
		Servers: []string{chat.Addr().String()}, Gate: gate.URL,
		Tokens: [][]byte{{1}, {2}}, Conversations: []uint64{1, 2},
	})
	if err != nil {
		t.Fatal(err)
	}
	testenv.Until(t, "it attacks", func() bool { return logIns.Load() > 20 && said.Load() > 20 })
	counts, err := attack.Stop()
	if err != nil {
		t.Fatal(err)
	}
	if counts.LogIns < 10 || counts.Refused < 10 || counts.Connections < 20 {
		t.Errorf("it counted %+v", counts)
	}
}

func TestWrongUsageIsRefusedBeforeAnythingIsConnectedTo(t *testing.T) {
	for _, args := range []string{
		"nonsense", "load --clients 3", "load --window 300", "load --size x", "load --size 9-",
		"load --rate 5 --window 5", "load --rounds -1", "load extra", "load --pid x", "load --listener x",
		"load --server nowhere", "load --gate ftp://x", "idle --clients 0", "storm --clients -1", "assign --count 0",
		"flood --accounts 3", "flood --again 0s",
	} {
		if code := run(t.Context(), append([]string{program}, strings.Fields(args)...)); code != process.ExitUsage {
			t.Errorf("%q exits with %d", args, code)
		}
	}
}

func TestWhatWasNotMeasuredIsNotShownAsZero(t *testing.T) {
	set := &proc.Set{Missing: []string{"chat 1"}}
	for _, f := range cpuFigures(10, set, nil, nil) {
		if !f.Absent {
			t.Errorf("%s is %v", f.Key, f.Value)
		}
	}
	b := &bench{}
	b.missing(set)
	b.missing(set)
	if len(b.report.Notes) != 1 || !strings.Contains(b.report.Notes[0], "not measured: chat 1") {
		t.Errorf("notes: %q", b.report.Notes)
	}
	b.report.Runs = []report.Run{{Target: report.System, Round: 1, Figures: cpuFigures(10, set, nil, nil)}}
	var out bytes.Buffer
	err := b.report.WriteJSON(&out)
	if err != nil || !json.Valid(out.Bytes()) || !strings.Contains(out.String(), `"cpu_s_per_million": null`) {
		t.Errorf("%v\n%s", err, out.String())
	}
}
