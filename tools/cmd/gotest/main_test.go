package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// first says whether it is called for the first time; a file remembers it.
const first = `
func first() bool {
	f, err := os.OpenFile("called", os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		_ = f.Close()
	}
	return err == nil
}
`

const flakyLine = "flaky: tiny TestA: failed, then passed alone\n"

func TestAFailedTestIsRunOnceMoreAlone(t *testing.T) {
	for name, c := range map[string]struct {
		source string
		race   bool
		code   int
		want   []string // in the output, in this order
		list   string   // what the flaky list holds
	}{
		"all pass": {
			source: `func TestA(t *testing.T) {}`,
			want:   []string{"ok    tiny  1 tests"},
		},
		"fails the first time": {
			source: `func TestA(t *testing.T) { if first() { t.Error("broken once") } }
			         func TestB(t *testing.T) {}`,
			want: []string{
				"broken once", "FAIL  tiny", "once more, alone: tiny TestA", "ok    tiny  1 tests", flakyLine,
			},
			list: flakyLine,
		},
		"fails each time": {
			source: `func TestA(t *testing.T) { t.Run("sub", func(t *testing.T) { t.Error("broken") }) }`,
			code:   1,
			want:   []string{"broken", "once more, alone: tiny TestA", "broken", "failed: tiny TestA, also alone"},
		},
		"one of two fails each time": {
			source: `func TestA(t *testing.T) { if first() { t.Error("broken once") } }
			         func TestB(t *testing.T) { t.Error("broken") }`,
			code: 1,
			want: []string{"failed: tiny TestB, also alone", flakyLine},
			list: flakyLine,
		},
		"is skipped when alone": {
			source: `func TestA(t *testing.T) { if first() { t.Fatal("broken") }; t.Skip("no") }`,
			code:   1,
			want:   []string{"failed: tiny TestA, also alone"},
		},
		"panics the first time": {
			source: `func TestA(t *testing.T) { if first() { panic("a bang") } }
			         func TestB(t *testing.T) {}`,
			want: []string{
				"a bang", "once more, alone: tiny TestA", "ok    tiny  1 tests",
				"what has not run: tiny", "ok    tiny  1 tests", flakyLine,
			},
			list: flakyLine,
		},
		"panics the first time before one that fails": {
			source: `func TestA(t *testing.T) { if first() { panic("a bang") } }
			         func TestB(t *testing.T) { t.Error("broken") }`,
			code: 1,
			want: []string{"what has not run: tiny", "broken", "failed: the rest of tiny", flakyLine},
			list: flakyLine,
		},
		"takes the package with it the first time": {
			source: `func TestA(t *testing.T) { if first() { os.Exit(3) } }`,
			want:   []string{"FAIL  tiny", "once more, alone: tiny TestA", flakyLine},
			list:   flakyLine,
		},
		"races the first time": {
			source: `func TestA(t *testing.T) {
			         	n, done := 0, make(chan bool)
			         	if first() { go func() { n++; close(done) }(); n++; <-done }
			         }`,
			race: true,
			want: []string{"WARNING: DATA RACE", "once more, alone: tiny TestA", flakyLine},
			list: flakyLine,
		},
		"does not compile": {
			source: `func TestA(t *testing.T) { nothing() }`,
			code:   1,
			want:   []string{"undefined: nothing", "failed, not run again: tiny failed outside of a test"},
		},
		"TestMain fails": {
			source: `func TestMain(m *testing.M) { m.Run(); os.Exit(1) }
			         func TestA(t *testing.T) {}`,
			code: 1,
			want: []string{"FAIL  tiny", "failed, not run again: tiny failed outside of a test"},
		},
		"six fail": {
			source: `func Test1(t *testing.T) { t.Error() }; func Test2(t *testing.T) { t.Error() }
			         func Test3(t *testing.T) { t.Error() }; func Test4(t *testing.T) { t.Error() }
			         func Test5(t *testing.T) { t.Error() }; func Test6(t *testing.T) { t.Error() }`,
			code: 1,
			want: []string{"failed, not run again: 6 tests at once are no accident"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if c.race && !hasC(t) {
				t.Skip("not run: the race detector needs a C compiler")
			}
			code, out, list := runOn(t, c.source, c.race)
			if code != c.code || list != c.list {
				t.Errorf("exit code %d, flaky %q, want %d, %q", code, list, c.code, c.list)
			}
			rest := out
			for _, want := range c.want {
				_, after, found := strings.Cut(rest, want)
				if !found {
					t.Fatalf("%q is not in its place:\n%s", want, out)
				}
				rest = after
			}
			if c.list != "" && rest != "" {
				t.Errorf("%q comes after the flaky tests", rest)
			}
		})
	}
}

func TestPackagesMustBeNamed(t *testing.T) {
	if code := run(t.Context(), []string{"-race"}, "", t.Output()); code != 2 {
		t.Errorf("exit code %d, want 2", code)
	}
}

// runOn tests a module with the one test file.
func runOn(t *testing.T, source string, race bool) (code int, out, list string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":    "module github.com/msrchat/msrchat/tiny\n\ngo 1.26.0\n",
		"a_test.go": "package tiny\n\nimport (\n\t\"os\"\n\t\"testing\"\n)\n" + first + source + "\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	t.Setenv("GOWORK", "off")
	args := []string{"-vet=off", "-timeout", "1m", "./..."}
	if race {
		args = append([]string{"-race"}, args...)
	}
	var b strings.Builder
	file := filepath.Join(t.TempDir(), "flaky")
	code = run(t.Context(), args, file, &b)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return code, b.String(), string(text)
}

// hasC says whether programs can be built with C, which the race detector needs.
func hasC(t *testing.T) bool {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "env", "CGO_ENABLED").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out)) == "1"
}
