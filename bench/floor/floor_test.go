package floor_test

import (
	"context"
	"database/sql"
	"net"
	"testing"
	"time"

	"github.com/msrchat/msrchat/shared/testenv"

	"github.com/msrchat/msrchat/bench/dial"
	"github.com/msrchat/msrchat/bench/floor"
	"github.com/msrchat/msrchat/bench/load"
	"github.com/msrchat/msrchat/bench/users"
)

// start runs a floor until stop.
func start(t *testing.T, kind floor.Kind, db *sql.DB) (address string, stop func()) {
	t.Helper()
	s, err := floor.NewServer(t.Context(), kind, db)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error)
	go func() { served <- s.Serve(ctx, l) }()
	return l.Addr().String(), func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("%s ended with %v", kind, err)
		}
	}
}

func TestEachFloorAnswersAndRelaysEverythingAndStoresItsPart(t *testing.T) {
	db := testenv.Open(t, testenv.MariaDB(t))
	tables := map[floor.Kind]string{floor.DB0: "bench_floor_db0", floor.Schema: "bench_floor_schema"}
	for _, kind := range floor.Kinds() {
		t.Run(string(kind), func(t *testing.T) {
			address, stop := start(t, kind, db)
			dialer := dial.New(nil)
			defer dialer.Keeper.Close()
			got, err := load.Run(t.Context(), load.Config{
				Clients: 10, Window: 4, MinSize: 1, MaxSize: 300,
				Duration: 300 * time.Millisecond, Settle: testenv.Patience,
			}, users.Floor{Address: address, Dialer: dialer}, load.Hooks{})
			if err != nil {
				t.Fatal(err)
			}
			if err := got.Broken(); err != nil {
				t.Error(err)
			}
			if got.Sent == 0 || got.Acked != got.Sent || got.Delivered != got.Sent || got.Unanswered != 0 ||
				len(got.Errors) != 0 {
				t.Errorf("got %+v", got)
			}
			if table := tables[kind]; table != "" {
				var rows, conversations int64
				err := db.QueryRowContext(t.Context(), "SELECT COUNT(*), COUNT(DISTINCT conversation_id) FROM "+table).
					Scan(&rows, &conversations)
				if err != nil || rows != got.Sent || conversations != 5 {
					t.Errorf("%d rows of %d conversations for %d messages, %v", rows, conversations, got.Sent, err)
				}
			}
			stop()
			if table := tables[kind]; table != "" {
				if _, err := db.ExecContext(t.Context(), "SELECT 1 FROM "+table); err == nil {
					t.Errorf("%s is still there", table)
				}
			}
		})
	}
}

// Its two keys are what makes the real table expensive.
func TestSchemaHasTheKeysOfTheRealTable(t *testing.T) {
	db := testenv.Open(t, testenv.MariaDB(t))
	_, stop := start(t, floor.Schema, db)
	defer stop()
	keys := func(table string) (n int) {
		t.Helper()
		err := db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM information_schema.statistics"+
			" WHERE table_schema = DATABASE() AND table_name = ? AND non_unique = 0", table).Scan(&n)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if got, want := keys("bench_floor_schema"), keys("events"); got != want || want < 5 {
		t.Errorf("%d columns in unique keys, the real table has %d", got, want)
	}
}

func TestAnUnknownKindOfFloorIsRefused(t *testing.T) {
	if _, err := floor.NewServer(t.Context(), "marble", nil); err == nil {
		t.Error("there is a marble floor")
	}
}
