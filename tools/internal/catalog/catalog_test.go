package catalog_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/msrchat/msrchat/tools/internal/catalog"
)

func TestTable(t *testing.T) {
	list := []catalog.Instance{
		{
			Service: "chat", ID: "0123456789abcdef", Address: "127.0.0.1:7801", Release: "r1",
			Checks: []catalog.Check{{Name: "ready", Status: "passing"}, {Name: "port", Status: "passing"}},
		},
		{
			Service: "mysql", ID: "x", Address: "127.0.0.1:7720",
			Checks: []catalog.Check{
				{Name: "port", Status: "passing"},
				{Name: "statement", Status: "critical", Output: "cannot connect\nmore"},
				{Name: "silent", Status: "warning"},
			},
		},
		{Service: "nomad", Address: "127.0.0.1:7710"},
		{Service: "status", Address: "127.0.0.1:7802", HTTP: "127.0.0.1:7803"},
	}
	var text strings.Builder
	if err := catalog.WriteTable(&text, catalog.Rows(list)); err != nil {
		t.Fatal(err)
	}
	want := `SERVICE  INSTANCE  ADDRESS         RELEASE  STATE
chat     01234567  127.0.0.1:7801  r1       passing (2 checks)
mysql    x         127.0.0.1:7720  -        critical: statement (cannot connect); warning: silent
nomad    -         127.0.0.1:7710  -        passing (0 checks)
status   -         127.0.0.1:7802  -        passing (0 checks), live page http://127.0.0.1:7803/
`
	if diff := cmp.Diff(want, text.String()); diff != "" {
		t.Error(diff)
	}
}

func TestShortCheckCutsLongOutput(t *testing.T) {
	got := catalog.ShortCheck(catalog.Check{Name: "ready", Output: strings.Repeat("长", 200)})
	if want := "ready (" + strings.Repeat("长", 100) + "…)"; got != want {
		t.Errorf("got %q", got)
	}
}
