package fleet

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/msrchat/msrchat/tools/internal/doctor"
)

// The versions that the doctor wants are those that the scripts and modules
// want, and its bounds of the chat servers are theirs.
func TestDoctorAgreesWithTheCheckout(t *testing.T) {
	checkout := "../../.."
	minimum := map[string]string{}
	for _, p := range tools {
		minimum[p.Name] = p.Minimum
	}
	for file, c := range map[string]struct{ pattern, want string }{
		"go.work":                               {`(?m)^go (\d+\.\d+)`, minimum["go"]},
		"justw":                                 {`(?m)^minimum=(\S+)`, minimum["just"]},
		"terraform/modules/job/versions.tf":     {`required_version = ">= (\S+)"`, minimum["terraform"]},
		"tools/get":                             {`consul\) echo (\S+) ;;`, minimum["consul"]},
		"tools/get#nomad":                       {`nomad\) echo (\S+) ;;`, minimum["nomad"]},
		"chat/internal/conn/server.go":          {`const \w+(?:Strangers|Handshakes|Handshaking) = (\d+)`, "2048"},
		"nomad/chat.nomad.hcl":                  {capacityDefault.String(), "18200"},
		"tools/internal/agent/nomad.hcl.tmpl":   {`max_kill_timeout = "(\w+)"`, "10m"},
		"nomad/chat.nomad.hcl#the variable set": {`MSRCHAT_CAPACITY\s+= (\S+)`, "var.capacity"},
	} {
		name, _, _ := strings.Cut(file, "#")
		text, err := os.ReadFile(filepath.Join(checkout, name))
		if err != nil {
			t.Fatal(err)
		}
		match := regexp.MustCompile(c.pattern).FindSubmatch(text)
		if match == nil || string(match[1]) != c.want {
			t.Errorf("%s says %q, the doctor %q", file, match, c.want)
		}
	}
	if handshakes != 2048 {
		t.Errorf("handshakes is %d", handshakes)
	}
}

func TestParseDatabase(t *testing.T) {
	got, clock, err := parseDatabase([]string{"10.11.6-MariaDB", "1", "0", "0", "O_DIRECT", "1", "1700000000.250000"})
	if err != nil {
		t.Fatal(err)
	}
	want := doctor.Database{Version: "10.11.6-MariaDB", Flush: 1, FlushMethod: "O_DIRECT", Doublewrite: true}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if off := clock.Sub(time.UnixMilli(1_700_000_000_250)).Abs(); off > time.Millisecond {
		t.Errorf("clock %v", clock)
	}
	mysql, _, err := parseDatabase([]string{"8.4.3", "2", "1", "0", "fsync", "OFF", "1"})
	if err != nil || mysql.Flush != 2 || !mysql.Binlog || mysql.Doublewrite {
		t.Errorf("%+v, %v", mysql, err)
	}
	for _, bad := range [][]string{nil, {""}, {"a", "b", "c", "d", "e", "f", "g"}} {
		if _, _, err := parseDatabase(bad); err == nil {
			t.Errorf("%q was taken for an answer", bad)
		}
	}
}

func TestMaxKillTimeout(t *testing.T) {
	for _, tc := range []struct {
		config map[string]any
		want   time.Duration
		fails  bool
	}{
		{map[string]any{"Client": map[string]any{"MaxKillTimeout": "10m"}}, 10 * time.Minute, false},
		{map[string]any{"Client": map[string]any{"MaxKillTimeout": ""}}, 30 * time.Second, false},
		{map[string]any{"Client": map[string]any{}}, 30 * time.Second, false},
		{map[string]any{"Client": map[string]any{"MaxKillTimeout": "soon"}}, 0, true},
		{map[string]any{}, 0, true},
	} {
		got, err := maxKillTimeout(tc.config)
		if got != tc.want || (err != nil) != tc.fails {
			t.Errorf("%v: %v, %v", tc.config, got, err)
		}
	}
}
