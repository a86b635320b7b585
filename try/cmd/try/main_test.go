package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/msrchat/msrchat/shared/golden"
	"github.com/msrchat/msrchat/shared/process"
)

func TestHelpGolden(t *testing.T) {
	t.Setenv("MSRCHAT_STATE", "")
	t.Setenv("MSRCHAT_PORT_BASE", "")
	var out, errOut bytes.Buffer
	if code := run(t.Context(), []string{"try", "--help"}, &out, &errOut); code != process.ExitOK {
		t.Fatalf("exit %d, %s", code, &errOut)
	}
	golden.Compare(t, "testdata/help.txt", out.Bytes())
}

func TestMistakesAreUsageErrors(t *testing.T) {
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"--nonsense"}, "nonsense"},
		{[]string{"now"}, "now"},
		{[]string{"--port-base", "80"}, "port base 80"},
		{[]string{"--state", "quo\"te"}, "MSRCHAT_STATE"},
	} {
		var out, errOut bytes.Buffer
		code := run(t.Context(), append([]string{"try"}, c.args...), &out, &errOut)
		if code != process.ExitUsage || !strings.Contains(errOut.String(), c.says) {
			t.Errorf("%v: exit %d, %q; want %d and %q", c.args, code, errOut.String(), process.ExitUsage, c.says)
		}
	}
}
