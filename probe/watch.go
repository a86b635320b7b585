package probe

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

const (
	// legMessages is how many messages of the proof go to one server at a time,
	// fewer where there are many servers.
	legMessages, leastLeg = 500, 32
	// triesPerServer: a passing server that cannot be reached from here is no
	// reason to hold a deployment up.
	triesPerServer = 3
	// trickleLeg is how many messages of the trickle go to one server in a row.
	trickleLeg = 12
	// trimEvery is the pause between two trims.
	trimEvery = 5 * time.Minute
)

var everybody = []int{0, 1, 2, 3}

// servers lists what can be probed: the own chat server first.
func (p *Probe) servers() (list []server, known bool) {
	others, known := p.fleet.others()
	return append([]server{{instance: p.cfg.Instance, release: p.cfg.Release, address: p.cfg.Home}}, others...), known
}

// prove sends the messages of the proof, through every server that passes, and
// returns when they are verified; false means that ctx ended.
func (p *Probe) prove(ctx context.Context) bool {
	started := time.Now()
	covered, failed := map[string]int{}, map[string]int{}
	for ctx.Err() == nil {
		list, known := p.servers()
		if !known {
			p.trouble(fmt.Errorf("Consul at %s has not answered yet", p.cfg.ConsulAddr)) //nolint:staticcheck // a name
			pause(ctx, time.Second)
			continue
		}
		n := max(min(legMessages, p.cfg.Messages/len(list)), leastLeg)
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
			p.log.Info("the proof is complete", "messages", p.state.total(), "servers", len(list), "took", time.Since(started))
			return true
		}
		every := time.Second * time.Duration(len(list)) / time.Duration(p.cfg.Rate)
		verified, err := p.run(ctx, target, n, every, everybody, everybody)
		covered[target.instance] += verified
		if err != nil && ctx.Err() == nil {
			failed[target.instance]++
			p.trouble(err)
			pause(ctx, 500*time.Millisecond)
		}
	}
	return false
}

// trickle probes one server after the other until ctx ends, and trims.
func (p *Probe) trickle(ctx context.Context) {
	var trimmed time.Time
	for n := 0; ctx.Err() == nil; n++ {
		if time.Since(trimmed) > trimEvery {
			if err := p.people.trim(ctx); err != nil && ctx.Err() == nil {
				p.trouble(err)
			}
			trimmed = time.Now()
		}
		list, _ := p.servers()
		one := []int{rand.IntN(side)}
		_, err := p.run(ctx, list[n%len(list)], trickleLeg, p.cfg.Every, one, []int{rand.IntN(side)})
		if err != nil && ctx.Err() == nil && !errors.Is(err, context.Canceled) {
			p.trouble(err)
			pause(ctx, time.Second)
		}
	}
}
