package agent

import (
	"context"
	"fmt"
	"slices"
	"time"

	consul "github.com/hashicorp/consul/api"
	nomad "github.com/hashicorp/nomad/api"

	"github.com/msrchat/msrchat/tools/process"
)

// pollEvery is the pause between two polls of an agent that starts.
const pollEvery = 100 * time.Millisecond

// AwaitConsul returns once Consul has a leader, or an error once p, its
// process, is gone or ctx ends.
func (a Agent) AwaitConsul(ctx context.Context, p process.Process, client *consul.Client) error {
	return a.await(ctx, p, "no leader yet", func(ctx context.Context) bool {
		leader, err := client.Status().LeaderWithQueryOptions((&consul.QueryOptions{}).WithContext(ctx))
		return err == nil && leader != ""
	})
}

// AwaitKeys returns once a Nomad server has created its signing keys.
func (a Agent) AwaitKeys(ctx context.Context, p process.Process, client *nomad.Client) error {
	return a.await(ctx, p, "no keys yet", func(ctx context.Context) bool {
		keys, _, err := client.Keyring().List((&nomad.QueryOptions{}).WithContext(ctx))
		return err == nil && slices.ContainsFunc(keys, func(k *nomad.RootKeyMeta) bool {
			return k.State == nomad.RootKeyStateActive
		})
	})
}

// AwaitNomad returns once Nomad has a leader and its node accepts jobs.
func (a Agent) AwaitNomad(ctx context.Context, p process.Process, client *nomad.Client) error {
	return a.await(ctx, p, "its node is not ready yet", func(ctx context.Context) bool {
		nodes, _, err := client.Nodes().List((&nomad.QueryOptions{}).WithContext(ctx))
		if err != nil {
			return false
		}
		for _, node := range nodes {
			if node.Status == nomad.NodeStatusReady && node.SchedulingEligibility == nomad.NodeSchedulingEligible {
				return true
			}
		}
		return false
	})
}

func (a Agent) await(ctx context.Context, p process.Process, lacking string, ready func(context.Context) bool) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for !ready(ctx) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %s: %w\n%s\n(log: %s)", a.name, lacking, ctx.Err(), a.LastLines(5), a.logFile)
		case <-tick.C:
		}
		if p.Start != 0 && !p.Running() {
			return fmt.Errorf("%s ended after its start:\n%s\n(log: %s)", a.name, a.LastLines(10), a.logFile)
		}
	}
	return nil
}
