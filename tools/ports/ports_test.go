package ports_test

import (
	"strings"
	"testing"

	"github.com/msrchat/msrchat/tools/ports"
)

func TestNewRefusesTablesThatDoNotFit(t *testing.T) {
	for base, ok := range map[int]bool{
		-1: false, 0: false, 1023: false, 1024: true, 7700: true, 65336: true, 65337: false, 70000: false,
	} {
		_, err := ports.New(base)
		if (err == nil) != ok {
			t.Errorf("New(%d): error %v, want ok %v", base, err, ok)
		}
		if err != nil && !strings.Contains(err.Error(), ports.EnvBase) {
			t.Errorf("New(%d): %q does not name %s", base, err, ports.EnvBase)
		}
	}
}

// The numbers are a contract: other parts of the project use them as defaults.
func TestDefaultNumbers(t *testing.T) {
	table := mustNew(t, ports.DefaultBase)
	for name, pair := range map[string][2]int{
		"gate":        {table.Gate(), 7700},
		"consul http": {table.ConsulHTTP(), 7701},
		"consul grpc": {table.ConsulGRPC(), 7702},
		"nomad http":  {table.NomadHTTP(), 7710},
		"mysql":       {table.MySQL(), 7720},
		"redis":       {table.Redis(), 7721},
		"mail smtp":   {table.MailSMTP(), 7725},
		"mail http":   {table.MailHTTP(), 7726},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: %d, want %d", name, pair[0], pair[1])
		}
	}
}

func TestFixedPortsAreDistinctAndOutsideTheDynamicRange(t *testing.T) {
	table := mustNew(t, 9000)
	first, last := table.Dynamic()
	seen := map[int]string{}
	for _, p := range table.Fixed() {
		if other, twice := seen[p.Number]; twice {
			t.Errorf("%s and %s share port %d", other, p.Owner, p.Number)
		}
		seen[p.Number] = p.Owner
		if p.Number >= first && p.Number <= last {
			t.Errorf("%s: %d lies in the dynamic range", p.Owner, p.Number)
		}
	}
}

func TestConflictsNameOnlyWhatOthersHold(t *testing.T) {
	table := mustNew(t, 7700)
	lines := table.Conflicts(func(port int) (taken, ours bool, who string) {
		switch port {
		case table.Gate():
			return true, false, "python3 (pid 17)"
		case table.Redis():
			return true, true, "our own"
		case table.MySQL():
			return true, false, ""
		}
		return false, false, ""
	})
	if len(lines) != 2 {
		t.Fatalf("got %d lines, want 2: %q", len(lines), lines)
	}
	if want := "port 7700 (gate) is taken by python3 (pid 17)"; lines[0] != want {
		t.Errorf("got %q, want %q", lines[0], want)
	}
	if !strings.Contains(lines[1], "7720") || !strings.Contains(lines[1], "cannot be seen") {
		t.Errorf("a holder nobody can see: got %q", lines[1])
	}
}

func TestReservedListsForeignDynamicPorts(t *testing.T) {
	table := mustNew(t, 7700)
	got := table.Reserved(func(port int) (taken, ours bool, who string) {
		return port%50 == 0 || port == 7801, port == 7801, ""
	})
	if want := "7800,7850"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func mustNew(t *testing.T, base int) ports.Table {
	t.Helper()
	table, err := ports.New(base)
	if err != nil {
		t.Fatal(err)
	}
	return table
}
