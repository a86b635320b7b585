package e2e_test

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/msrchat/msrchat/shared/testenv"

	"github.com/msrchat/msrchat/e2e/cluster"
	"github.com/msrchat/msrchat/e2e/fleet"
)

// frozen is how long an agent does nothing: less than a chat server's patience
// with database and Consul, more than any check's.
const frozen = 4 * time.Second

// TestAgents is the long form of the agents' faults: each many times.
// docs/faults.md has the command and a table.
func TestAgents(t *testing.T) {
	times, err := strconv.Atoi(os.Getenv("MSRCHAT_AGENTS"))
	if err != nil || times < 1 {
		t.Skip("not run: MSRCHAT_AGENTS does not say how many times; TestFleet harms each agent once")
	}
	f := fleet.Up(t)
	people := &talk{f: f}
	people.connect(t)
	for i := range times {
		for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGSTOP} {
			for _, fault := range people.agents(t, sig) {
				t.Run(fmt.Sprintf("%s %d", fault.name, i+1), func(t *testing.T) { people.survive(t, fault) })
			}
		}
	}
}

// agents are the faults of the programs that watch over all others: no server
// ends. `up` starts what ended again; what was stopped is continued.
func (p *talk) agents(t *testing.T, sig syscall.Signal) (faults []fault) {
	t.Helper()
	for _, name := range []string{"consul", "nomad"} {
		faults = append(faults, fault{
			name: fmt.Sprintf("%s agent: %s", name, sig), service: "chat",
			do: func() { p.f.SignalAgent(sig, name) },
			back: func(old []int) {
				t.Helper()
				if sig == syscall.SIGSTOP { // all was said while it was frozen
					time.Sleep(frozen) // the pause is what is tested
					p.say(t, 10)
					cluster.Check(t, p.sent, p.a, p.b)
					p.f.SignalAgent(syscall.SIGCONT, name)
				} else {
					p.f.Just("up")
				}
				testenv.Until(t, "all services pass", func() bool {
					for service, n := range map[string]int{"chat": 2, "status": 2, "gate": 1, "mysql": 1, "redis": 1} {
						if len(p.f.Passing(service)) != n {
							return false
						}
					}
					return true
				})
				if now := p.f.Processes("chat", ""); !slices.Equal(now, old) {
					t.Errorf("the chat servers are %v now, were %v", now, old)
				}
			},
		})
	}
	return faults
}
