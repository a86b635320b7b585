package lan_test

import (
	"context"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/msrchat/msrchat/tools/internal/lan"
)

// Two nodes and the users reach each other, unless a node is unplugged or two
// are cut.
func TestHostsReachEachOther(t *testing.T) {
	if runtime.GOOS != "linux" || os.Getuid() != 0 {
		t.Skip("not run: network namespaces need Linux and root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("not run: the program ip is not on PATH")
	}
	l := lan.New(t.TempDir(), "a", "b")
	t.Cleanup(func() {
		if err := l.Delete(context.Background()); err != nil { // the test's own has ended
			t.Error(err)
		}
	})
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(l.Create(t.Context()))

	expect := func(what string, aFromUsers, bFromUsers, bFromA bool) {
		t.Helper()
		soon(t, what+": users reach a", aFromUsers, func() bool { return reaches(t.Context(), l.Address("a")) })
		soon(t, what+": users reach b", bFromUsers, func() bool { return reaches(t.Context(), l.Address("b")) })
		soon(t, what+": a reaches b", bFromA,
			func() bool { return reachesFrom(t.Context(), l.Namespace("a"), l.Address("b")) })
	}
	expect("at first", true, true, true)
	must(l.Cut(t.Context(), "a", "b"))
	expect("a and b are cut", true, true, false)
	must(l.Mend(t.Context(), "a", "b"))
	expect("mended", true, true, true)
	must(l.Unplug(t.Context(), "b"))
	expect("b is unplugged", true, false, false)
	must(l.Plug(t.Context(), "b"))
	expect("plugged in", true, true, true)
	must(l.Cut(t.Context(), lan.Users, "a"))
	expect("users and a are cut", false, true, true)

	must(l.Delete(t.Context()))
	if left := l.Namespaces(); len(left) > 0 {
		t.Errorf("left after Delete: %v", left)
	}
	must(l.Delete(t.Context())) // again: nothing to do
}

// soon asks until the answer is the right one: the kernel resolves addresses
// again only some time after a failure.
func soon(t *testing.T, what string, want bool, ask func() bool) {
	t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for ask() != want {
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v, also after a while", what, !want)
		}
	}
}

// reaches: a closed port that refuses is an answer from a machine that is there.
func reaches(ctx context.Context, address string) bool {
	dialer := net.Dialer{Timeout: time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(address, "9"))
	if err == nil {
		_ = conn.Close()
	}
	return err == nil || strings.Contains(err.Error(), "refused")
}

func reachesFrom(ctx context.Context, namespace, address string) bool {
	cmd := exec.CommandContext(ctx, "nsenter", "--net=/run/netns/"+namespace, "timeout", "1", "bash", "-c",
		"exec 3<>/dev/tcp/"+address+"/9")
	output, _ := cmd.CombinedOutput()
	return strings.Contains(string(output), "refused")
}
