package probe

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/msrchat/msrchat/shared/retry"
)

const (
	// proofRound is how many messages of the proof go to one server at a time, at
	// least minRound where there are many servers.
	proofRound, minRound = 500, 32
	// triesPerServer: a passing server that cannot be reached from here is no
	// reason to delay a deployment.
	triesPerServer = 3
	// trickleRound is how many messages of the trickle go to one server in a row.
	trickleRound = 12
	// trimEvery is the pause between two trims.
	trimEvery = 5 * time.Minute
)

// allOf chooses all accounts of a side.
var allOf = []int{0, 1, 2, 3}

// home is the probe's own chat server.
func (p *Probe) home() server {
	return server{instance: p.cfg.Instance, release: p.cfg.Release, address: p.cfg.Home, tlsName: p.cfg.TLSServerName}
}

// servers lists what can be probed, the probe's own chat server first; false
// before Consul has answered.
func (p *Probe) servers() (list []server, loaded bool) {
	others, loaded := p.catalog.others()
	return append([]server{p.home()}, others...), loaded
}

// prove sends the messages of the proof, through every server that passes, and
// returns when they are verified; false means that ctx ended.
func (p *Probe) prove(ctx context.Context) bool {
	started := time.Now()
	covered, failed := map[string]int{}, map[string]int{}
	for ctx.Err() == nil {
		list, loaded := p.servers()
		if !loaded {
			p.trouble(fmt.Errorf("no answer from Consul at %s yet", p.cfg.ConsulAddr))
			retry.Sleep(ctx, time.Second)
			continue
		}
		n := max(min(proofRound, p.cfg.Messages/len(list)), minRound)
		target, complete := list[0], true
		for _, s := range list {
			if covered[s.instance] < n && (failed[s.instance] < triesPerServer || s == list[0]) {
				complete = false
			}
			if covered[s.instance]+failed[s.instance]*n < covered[target.instance]+failed[target.instance]*n {
				target = s
			}
		}
		if complete && p.state.total() >= p.cfg.Messages {
			p.state.prove()
			p.log.Info("the proof is complete",
				"messages", p.state.total(), "servers", len(list), "took", time.Since(started))
			return true
		}
		every := time.Second * time.Duration(len(list)) / time.Duration(p.cfg.Rate)
		verified, err := p.run(ctx, target, n, every, allOf, allOf)
		covered[target.instance] += verified
		if err != nil && ctx.Err() == nil {
			failed[target.instance]++
			p.trouble(err)
			retry.Sleep(ctx, 500*time.Millisecond)
		}
	}
	return false
}

// trickle probes one server after the other until ctx ends, and trims.
func (p *Probe) trickle(ctx context.Context) {
	var trimmed time.Time
	for n := 0; ctx.Err() == nil; n++ {
		if time.Since(trimmed) > trimEvery {
			if err := p.accounts.trim(ctx); err != nil && ctx.Err() == nil {
				p.trouble(err)
			}
			trimmed = time.Now()
		}
		list, _ := p.servers()
		near, far := []int{rand.IntN(perSide)}, []int{rand.IntN(perSide)}
		_, err := p.run(ctx, list[n%len(list)], trickleRound, p.cfg.Every, near, far)
		if err != nil && ctx.Err() == nil && !errors.Is(err, context.Canceled) {
			p.trouble(err)
			retry.Sleep(ctx, time.Second)
		}
	}
}
