package report_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/msrchat/msrchat/shared/testenv"

	"github.com/msrchat/msrchat/bench/report"
)

// three rounds, in which machine and database are of different speeds; only the
// ratios within a round are steady.
func three() *report.Report {
	r := &report.Report{
		Command: "msrchat-bench load", What: "2 clients", Started: time.Unix(0, 0),
		Settings: map[string]int{"clients": 2},
		Database: &report.Database{Address: "127.0.0.1:1", Version: "10.11", Flush: 1},
		Notes:    []string{"not measured: redis"},
	}
	for i, speed := range []float64{100, 1000, 300} {
		r.Runs = append(r.Runs,
			report.Run{Target: "db0", Round: i + 1, Figures: []report.Figure{
				report.Measure("rate", "rate", 2*speed), report.Count("lost", "lost", 0),
			}},
			report.Run{Target: report.System, Round: i + 1, Figures: []report.Figure{
				report.Measure("rate", "rate", speed), report.Measure("extra", "extra", 5),
				report.Missing("rss", "memory"), report.Count("lost", "lost", int64(i)),
			}, Errors: map[string]int64{"timeout": 2}},
		)
	}
	return r
}

func TestRatiosAreOfTheSameRound(t *testing.T) {
	s := three().Summary()
	for _, c := range []struct {
		name      string
		got, want float64
	}{
		{"median", s.Medians[report.System]["rate"], 300},
		{"floor's median", s.Medians["db0"]["rate"], 600},
		{"ratio", s.Ratios["db0"]["rate"], 0.5},
		{"median of a count", s.Medians[report.System]["lost"], 1},
	} {
		if c.got != c.want {
			t.Errorf("%s is %v, want %v", c.name, c.got, c.want)
		}
	}
	if _, ok := s.Medians[report.System]["rss"]; ok {
		t.Error("what was not measured has a median")
	}
	if _, ok := s.Ratios["db0"]["lost"]; ok {
		t.Error("a count has a ratio")
	}
}

func TestTheTableHasALineForEachFigure(t *testing.T) {
	var out bytes.Buffer
	if err := three().WriteTable(&out); err != nil {
		t.Fatal(err)
	}
	fields := make(map[string]string)
	for line := range strings.Lines(out.String()) {
		f := strings.Fields(line)
		if len(f) > 1 {
			fields[f[0]] = strings.Join(f[1:], " ")
		}
	}
	for label, want := range map[string]string{
		"db0": "msrchat /db0", "rate": "600 300 0.50", "extra": "- 5 -", "memory": "- - -", "lost": "0 1 -",
	} {
		if fields[label] != want {
			t.Errorf("line %q is %q, want %q", label, fields[label], want)
		}
	}
	for _, want := range []string{
		"innodb_flush_log_at_trx_commit=1", "log_bin=OFF", "6 × timeout", "not measured: redis",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table does not say %q:\n%s", want, out.String())
		}
	}
	// The labels' order is the order of the figures, also of those that only the
	// later target has.
	at := func(label string) int { return strings.Index(out.String(), label) }
	if at("extra") < at("rate") || at("extra") > at("lost") {
		t.Errorf("the extra figure stands elsewhere:\n%s", out.String())
	}
}

func TestJSONHasEveryRound(t *testing.T) {
	var out bytes.Buffer
	if err := three().WriteJSON(&out); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Command  string
		Settings struct{ Clients int }
		Database struct {
			Flush int `json:"innodb_flush_log_at_trx_commit"`
		}
		Runs []struct {
			Target  string
			Round   int
			Figures map[string]*float64
			Errors  map[string]int64
		}
		Summary report.Summary
	}
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	last := got.Runs[len(got.Runs)-1]
	rss, named := last.Figures["rss"]
	switch {
	case got.Command != "msrchat-bench load", got.Settings.Clients != 2, got.Database.Flush != 1, len(got.Runs) != 6:
		t.Errorf("got %+v", got)
	case last.Target != report.System || last.Round != 3 || *last.Figures["rate"] != 300 || last.Errors["timeout"] != 2:
		t.Errorf("the last run is %+v", last)
	case !named || rss != nil:
		t.Error("what was not measured is not null")
	case got.Summary.Ratios["db0"]["rate"] != 0.5:
		t.Errorf("the summary is %+v", got.Summary)
	}
}

func TestSettingsThatAreNotDurableAreNamed(t *testing.T) {
	cfg := testenv.MariaDB(t)
	db := testenv.Open(t, cfg)
	d, err := report.ReadDatabase(t.Context(), db, cfg.Addr)
	if err != nil {
		t.Fatal(err)
	}
	if d.Flush != 1 || d.Binlog || d.Version == "" || strings.Contains(d.String(), "NOT DURABLE") {
		t.Errorf("got %s", d)
	}
	before, err := report.ReadCounters(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	after, err := report.ReadCounters(t.Context(), db)
	if err != nil || after.Questions <= before.Questions || after.Connections < 1 || after.ThreadsRunning < 1 {
		t.Errorf("counters went from %+v to %+v, %v", before, after, err)
	}
	for _, lax := range []report.Database{{Flush: 2}, {Flush: 1, Binlog: true, SyncBinlog: 0}} {
		if !strings.Contains(lax.String(), "NOT DURABLE") {
			t.Errorf("%s does not warn", &lax)
		}
	}
}
