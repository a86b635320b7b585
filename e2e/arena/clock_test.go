package arena

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestAProgramsClockJumps(t *testing.T) {
	c := newClock(t.TempDir())
	if c.Missing != nil {
		t.Skip("not run:", c.Missing)
	}
	for _, by := range []time.Duration{0, time.Hour, -time.Hour, 0} {
		if err := c.Step(by); err != nil {
			t.Fatal(err)
		}
		date := exec.Command("date", "+%s")
		date.Env = append(os.Environ(), c.environ()...)
		before := time.Now().Add(-time.Second)
		out, err := date.Output()
		if err != nil {
			t.Fatal(err)
		}
		seconds, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
		shown := time.Unix(seconds, 0)
		if err != nil || shown.Before(before.Add(by)) || shown.After(time.Now().Add(by)) {
			t.Errorf("stepped by %v, the clock shows %s, %v", by, out, err)
		}
	}
}
