package msglog_test

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/msrchat/msrchat/shared/database"
	"github.com/msrchat/msrchat/shared/testenv"

	"github.com/msrchat/msrchat/chat/internal/msglog"
)

// BenchmarkLog measures durable messages per second on a real MariaDB. It also
// measures a floor in the same run: the same rows inserted by one connection without
// a log, each batch taking what waits. Each figure is the median of the rounds. Only
// the ratio may be compared between machines.
//
//	go test -run '^$' -bench Log -benchtime 1x ./internal/msglog
const (
	benchWindow   = 1500 * time.Millisecond
	benchRounds   = 3
	conversations = 100
	bodyLen       = 128
)

func BenchmarkLog(b *testing.B) {
	for _, outstanding := range []int{1, 8} {
		b.Run(fmt.Sprintf("outstanding=%d", outstanding), func(b *testing.B) {
			for b.Loop() {
				var floor, one, two []float64
				for range benchRounds {
					floor = append(floor, benchFloor(b, outstanding))
					one = append(one, benchProcesses(b, 1, outstanding))
					two = append(two, benchProcesses(b, 2, outstanding))
				}
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(median(floor), "floor-msg/s")
				b.ReportMetric(median(one), "one-msg/s")
				b.ReportMetric(median(one)/median(floor), "one/floor")
				b.ReportMetric(median(two), "two-msg/s")
				b.ReportMetric(median(two)/median(floor), "two/floor")
			}
		})
	}
}

func median(v []float64) float64 {
	for i := range v {
		for j := i; j > 0 && v[j] < v[j-1]; j-- {
			v[j], v[j-1] = v[j-1], v[j]
		}
	}
	return v[len(v)/2]
}

var body = []byte(strings.Repeat("x", bodyLen))

// senders runs one closed loop per conversation and returns messages a second.
func senders(outstanding int, send func(conversation uint64, first, n int) error) (float64, error) {
	var done atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	deadline := time.Now().Add(benchWindow)
	for c := range uint64(conversations) {
		wg.Go(func() {
			for n := 0; time.Now().Before(deadline); n += outstanding {
				if err := send(c+1, n, outstanding); err != nil {
					failed.Store(&err)
					return
				}
				done.Add(int64(outstanding))
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	return float64(done.Load()) / benchWindow.Seconds(), nil
}

// benchFloor inserts rows of the same size into a table of the same columns
// without the idempotency index, numbered by the program alone.
func benchFloor(b *testing.B, outstanding int) float64 {
	b.Helper()
	db := testenv.Open(b, testenv.MariaDB(b))
	if _, err := db.Exec("ALTER TABLE events DROP KEY uk_events_idem"); err != nil {
		b.Fatal(err)
	}
	type item struct {
		conversation uint64
		n            int
		done         chan error
	}
	queue := make(chan item, conversations)
	go func() {
		conn, err := db.Conn(context.Background())
		for first := range queue {
			batch := []item{first}
			for more := true; more && len(batch)*outstanding < 512; {
				select {
				case i := <-queue:
					batch = append(batch, i)
				default:
					more = false
				}
			}
			if err == nil {
				var text []byte
				text = append(text, "INSERT INTO events"+
					" (conversation_id,seq,sender_id,client_msg_id,kind,body,created_at) VALUES "...)
				for at, i := range batch {
					for k := range outstanding {
						if at+k > 0 {
							text = append(text, ',')
						}
						id := id(i.conversation, uint64(i.n+k))
						text = fmt.Appendf(text, "(%d,%d,1,x'%x',1,x'", i.conversation, i.n+k+1, id)
						text = append(hex.AppendEncode(text, body), "',1)"...)
					}
				}
				_, err = conn.ExecContext(context.Background(), string(text))
			}
			for _, i := range batch {
				i.done <- err
			}
		}
	}()
	defer close(queue)
	rate, err := senders(outstanding, func(conversation uint64, first, _ int) error {
		done := make(chan error, 1)
		queue <- item{conversation, first, done}
		return <-done
	})
	if err != nil {
		b.Fatal(err)
	}
	return rate
}

const workerEnv = "MSGLOG_BENCH_WORKER"

// benchProcesses runs real processes that write the same conversations through
// a Log each, and checks that the logs are dense afterwards.
func benchProcesses(b *testing.B, processes, outstanding int) float64 {
	b.Helper()
	cfg := testenv.MariaDB(b)
	type worker struct {
		cmd *exec.Cmd
		out *bufio.Scanner
		in  interface{ Close() error }
	}
	var workers []worker
	for p := range processes {
		cmd := exec.Command(os.Args[0])
		settings := fmt.Sprintf("%s %s %s %d %d", cfg.Addr, cfg.User, cfg.Name, p+1, outstanding)
		cmd.Env = append(os.Environ(), workerEnv+"="+settings)
		cmd.Stderr = os.Stderr
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			b.Fatal(err)
		}
		stdin, err := cmd.StdinPipe()
		if err != nil {
			b.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		w := worker{cmd, bufio.NewScanner(stdout), stdin}
		if !w.out.Scan() || w.out.Text() != "ready" {
			b.Fatalf("worker says %q", w.out.Text())
		}
		workers = append(workers, w)
	}
	for _, w := range workers {
		_ = w.in.Close() // starts them together
	}
	var sum float64
	for _, w := range workers {
		if !w.out.Scan() {
			b.Fatal("a worker said nothing")
		}
		rate, err := strconv.ParseFloat(w.out.Text(), 64)
		if err != nil {
			b.Fatal(err)
		}
		if rate == 0 {
			b.Error("a worker starved")
		}
		sum += rate
		if err := w.cmd.Wait(); err != nil {
			b.Fatal(err)
		}
	}
	var gaps int
	err := testenv.Open(b, cfg).QueryRow("SELECT COUNT(*) FROM (SELECT 1 FROM events GROUP BY conversation_id" +
		" HAVING COUNT(*) <> MAX(seq)) g").Scan(&gaps)
	if err != nil || gaps != 0 {
		b.Fatalf("%d conversations with gaps, %v", gaps, err)
	}
	return sum
}

// TestMain lets the test binary be a process of BenchmarkLog.
func TestMain(m *testing.M) {
	if os.Getenv(workerEnv) == "" {
		os.Exit(m.Run())
	}
	if err := benchWorker(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// benchWorker writes until the window is over and prints messages a second.
func benchWorker() error {
	var cfg database.Config
	var sender uint64
	var outstanding int
	if _, err := fmt.Sscan(os.Getenv(workerEnv), &cfg.Addr, &cfg.User, &cfg.Name, &sender, &outstanding); err != nil {
		return err
	}
	ctx := context.Background()
	db, err := database.Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer db.Close()
	l := msglog.New(db, msglog.Options{})
	fmt.Println("ready")
	_, _ = os.Stdin.Read(make([]byte, 1)) // ends when the parent closes it
	rate, err := senders(outstanding, func(conversation uint64, first, n int) error {
		entries := make([]msglog.Event, n)
		for i := range entries {
			entries[i] = msglog.Event{Sender: sender, ID: id(sender, uint64(first+i)), Kind: 1, Body: body}
		}
		_, err := l.Append(ctx, conversation, entries)
		return err
	})
	if err != nil {
		return err
	}
	fmt.Println(rate)
	return l.Close(ctx)
}
