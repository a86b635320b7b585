package faults

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/proof/account"
	"github.com/msrchat/msrchat/proof/check"
	"github.com/msrchat/msrchat/proof/device"
	"github.com/msrchat/msrchat/shared/conversation"

	"github.com/msrchat/msrchat/e2e/arena"
)

// people are those who talk while faults are injected, and visitors, who come
// after each fault to try whether it works again.
type people struct {
	arena    *arena.Arena
	db       *sql.DB // past the wires
	gate     *client.Gate
	crowd    *device.Crowd
	talks    map[uint64]conversation.Pair
	visitors []visitor
	end      context.CancelFunc // of the devices
}

// invite makes the accounts and brings everybody online. Everyone talks with two
// others.
func invite(ctx context.Context, a *arena.Arena, cfg Config) (*people, error) {
	db, err := account.Open(ctx, a.Database())
	if err != nil {
		return nil, err
	}
	p := &people{arena: a, db: db, end: func() {}}
	if err := p.join(ctx, cfg); err != nil {
		p.end()
		return nil, errors.Join(fmt.Errorf("bring %d people online: %w", cfg.Clients, err), db.Close())
	}
	return p, nil
}

func (p *people) join(ctx context.Context, cfg Config) error {
	all, err := account.Make(ctx, p.db, account.Order{Run: "faults", Count: cfg.Clients, Devices: cfg.Devices})
	if err != nil {
		return err
	}
	pairs := make([]conversation.Pair, len(all))
	for i := range all {
		pairs[i] = conversation.Pair{A: all[i].ID, B: all[(i+1)%len(all)].ID}
	}
	ids, err := account.OpenDirect(ctx, p.db, pairs)
	if err != nil {
		return err
	}
	p.talks = make(map[uint64]conversation.Pair, len(ids))
	for i, id := range ids {
		p.talks[id] = pairs[i]
	}
	if err := p.expect(ctx); err != nil {
		return err
	}
	if p.gate, err = client.NewGate(p.arena.Gate(), nil); err != nil {
		return err
	}
	// The devices stay when ctx ends, to be judged.
	var life context.Context
	life, p.end = context.WithCancel(context.WithoutCancel(ctx))
	stay := context.AfterFunc(ctx, p.end)
	defer stay()
	p.crowd, err = device.NewCrowd(life, device.CrowdOptions{
		Gate: p.gate, People: all, Conversations: p.talks, Seed: cfg.Seed, Sizes: []int{8, 40, 40, 120, 1000},
		Change: func(o *client.Options) { o.TLS = p.arena.TLS() },
	})
	return err
}

// leave ends all devices.
func (p *people) leave() error {
	p.crowd.Close()
	p.end()
	return p.db.Close()
}

func (p *people) online() bool {
	for _, d := range p.crowd.Devices() {
		if !d.Online() {
			return false
		}
	}
	return true
}

// judge compares what everybody saw with the log. The devices have left.
func (p *people) judge(ctx context.Context, quiet time.Time, minimum int) (*check.Report, []check.Row, error) {
	run := check.Run{Journals: p.crowd.Journals(), Quiet: quiet, Heartbeat: arena.Heartbeat, Minimum: minimum}
	if err := run.Read(ctx, p.db, check.Conversations(run.Journals)); err != nil {
		return nil, nil, err
	}
	return run.Check(), run.Log, nil
}
