package testlog_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/msrchat/msrchat/tools/internal/testlog"
)

const events = `{"Action":"start","Package":"github.com/msrchat/msrchat/gate"}
{"Action":"run","Package":"github.com/msrchat/msrchat/gate","Test":"TestA"}
{"Action":"output","Package":"github.com/msrchat/msrchat/gate","Test":"TestA","Output":"noise\n"}
{"Action":"pass","Package":"github.com/msrchat/msrchat/gate","Test":"TestA","Elapsed":0.1}
{"Action":"output","Package":"github.com/msrchat/msrchat/gate","Test":"TestB","Output":"=== RUN   TestB\n"}
{"Action":"output","Package":"github.com/msrchat/msrchat/gate","Test":"TestB","Output":"    a_test.go:1: no consul\n"}
{"Action":"output","Package":"github.com/msrchat/msrchat/gate","Test":"TestB","Output":"--- SKIP: TestB (0.00s)\n"}
{"Action":"skip","Package":"github.com/msrchat/msrchat/gate","Test":"TestB","Elapsed":0}
{"Action":"output","Package":"github.com/msrchat/msrchat/gate","Output":"PASS\n"}
{"Action":"pass","Package":"github.com/msrchat/msrchat/gate","Elapsed":1.234}
{"Action":"skip","Package":"github.com/msrchat/msrchat/gate/cmd/gate","Elapsed":0}
`

func TestPassingPackagesTakeALineAndSkipsAreListed(t *testing.T) {
	got, outcome := account(t, events)
	want := "ok    gate  1 tests, 1.23s\nnot run: gate TestB: no consul\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	gate := func(name string) []testlog.Test {
		return []testlog.Test{{Package: "github.com/msrchat/msrchat/gate", Name: name}}
	}
	diff := cmp.Diff(testlog.Outcome{Passed: gate("TestA"), Skipped: gate("TestB")}, outcome)
	if diff != "" || !outcome.OK() {
		t.Error(diff)
	}
}

func TestFailuresShowTheirOutput(t *testing.T) {
	got, outcome := account(t, `{"Action":"output","Package":"p","Test":"TestC","Output":"=== RUN   TestC\n"}
{"Action":"output","Package":"p","Test":"TestC","Output":"    c_test.go:3: got 1, want 2\n"}
{"Action":"output","Package":"p","Test":"TestC","Output":"--- FAIL: TestC (0.00s)\n"}
{"Action":"fail","Package":"p","Test":"TestC","Elapsed":0}
{"Action":"output","Package":"p","Output":"FAIL\tp\t0.1s\n"}
{"Action":"fail","Package":"p","Elapsed":0.1}
`)
	want := "    c_test.go:3: got 1, want 2\n--- FAIL: TestC (0.00s)\nFAIL\tp\t0.1s\nFAIL  p  100ms\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	wants(t, outcome, testlog.Outcome{Failed: []testlog.Test{{Package: "p", Name: "TestC"}}})
}

// A panic of a goroutine, os.Exit and the time limit end no test.
func TestWhatHadStartedAndNotEndedHasFailed(t *testing.T) {
	got, outcome := account(t, `{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"run","Package":"p","Test":"TestB"}
{"Action":"run","Package":"p","Test":"TestB/sub"}
{"Action":"output","Package":"p","Test":"TestB/sub","Output":"panic: test timed out after 3s\n"}
{"Action":"run","Package":"q","Test":"TestD"}
{"Action":"output","Package":"p","Output":"FAIL\tp\t0.1s\n"}
{"Action":"fail","Package":"p","Elapsed":0.1}
{"Action":"pass","Package":"q","Test":"TestD"}
`)
	if want := "panic: test timed out after 3s\nFAIL\tp\t0.1s\nFAIL  p  100ms\n"; got != want {
		t.Error(cmp.Diff(want, got))
	}
	wants(t, outcome, testlog.Outcome{
		Passed: []testlog.Test{{Package: "p", Name: "TestA"}, {Package: "q", Name: "TestD"}},
		Failed: []testlog.Test{{Package: "p", Name: "TestB"}},
	})
}

// The failed test may be an accident, the race is none that it explains.
func TestARaceOutsideOfATestIsNoTests(t *testing.T) {
	_, outcome := account(t, `{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Output":"WARNING: DATA RACE\n"}
{"Action":"fail","Package":"p"}
`)
	wants(t, outcome, testlog.Outcome{Failed: []testlog.Test{{Package: "p", Name: "TestA"}}, Unnamed: []string{"p"}})
}

func TestFailedBuildsShowTheCompiler(t *testing.T) {
	got, outcome := account(t, `{"ImportPath":"p","Action":"build-output","Output":"./x.go:3:1: undefined: y\n"}
{"ImportPath":"p","Action":"build-fail"}
go: warning of the tool itself
{"Action":"fail","Package":"p","Elapsed":0,"FailedBuild":"p"}
`)
	want := "./x.go:3:1: undefined: y\ngo: warning of the tool itself\nFAIL  p  0s\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	wants(t, outcome, testlog.Outcome{Unnamed: []string{"p"}})
}

func TestOnlyTheEndOfLongOutputIsKept(t *testing.T) {
	line := `{"Action":"output","Package":"p","Test":"T","Output":"x\n"}` + "\n"
	got, _ := account(t, strings.Repeat(line, 5000)+`{"Action":"fail","Package":"p","Test":"T"}`)
	if n := strings.Count(got, "x\n"); n != 400 {
		t.Errorf("%d lines, want 400", n)
	}
}

// wants compares the outcome of a run that failed.
func wants(t *testing.T, got, want testlog.Outcome) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" || got.OK() {
		t.Errorf("OK is %v, %s", got.OK(), diff)
	}
}

func account(t *testing.T, events string) (text string, outcome testlog.Outcome) {
	t.Helper()
	var out strings.Builder
	log := testlog.New(&out)
	if err := log.Read(strings.NewReader(events)); err != nil {
		t.Fatal(err)
	}
	outcome = log.Close()
	return out.String(), outcome
}
