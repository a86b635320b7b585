// Package golden compares what a program produces with a file that is checked
// in, so that a change of it shows in review. It is for tests.
package golden

import (
	"flag"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files")

// Compare fails the test if got is not the content of file. With -update it
// writes the file first.
func Compare(tb testing.TB, file string, got []byte) {
	tb.Helper()
	if *update {
		if err := os.WriteFile(file, got, 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		tb.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		tb.Errorf("(-%s +code); with -update the test writes the file:\n%s", file, diff)
	}
}
