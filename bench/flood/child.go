package flood

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/msrchat/msrchat/shared/certificate"

	"github.com/msrchat/msrchat/bench/child"
	"github.com/msrchat/msrchat/bench/dial"
	"github.com/msrchat/msrchat/bench/place"
	"github.com/msrchat/msrchat/bench/priority"
	"github.com/msrchat/msrchat/bench/users"
)

// Command is the hidden command of a program that can attack: it is started as "PROGRAM
// Command" and calls Main.
const Command = "attack"

// Order is what a child is to attack.
type Order struct {
	Plan
	Servers       []string `json:"servers"`
	Gate          string   `json:"gate"`
	CAFile        string   `json:"ca_file"`
	Tokens        [][]byte `json:"tokens"` // of the accounts
	Conversations []uint64 `json:"conversations"`
}

// Child is an attack from a process of its own: the goroutines of thousands of attackers
// would hold up those whose messages are measured.
type Child struct{ process *child.Child }

// Start runs this program again as an attacker. The child ends with Stop, and by itself when
// this process dies.
func Start(ctx context.Context, order Order) (*Child, error) {
	process, err := child.StartSession(ctx, []string{Command})
	if err != nil {
		return nil, err
	}
	if err := json.NewEncoder(process.In).Encode(order); err != nil {
		return nil, fmt.Errorf("order the attack: %w", errors.Join(err, process.Stop(nil)))
	}
	return &Child{process}, nil
}

// Stop ends the attack and returns what happened.
func (c *Child) Stop() (counts Counts, err error) {
	err = c.process.Stop(func(r io.Reader) error { return json.NewDecoder(r).Decode(&counts) })
	if err != nil {
		return counts, fmt.Errorf("end the attack: %w", err)
	}
	return counts, nil
}

// Main is the child's side: it attacks until its standard input ends.
func Main(ctx context.Context, stdin io.Reader, stdout io.Writer) error {
	// The attackers' machines are not the fleet's: what they do here takes no core from it.
	if err := priority.Lowest(); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	var order Order
	in := json.NewDecoder(stdin)
	if err := in.Decode(&order); err != nil {
		return fmt.Errorf("read the order: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer cancel()
		_, _ = io.Copy(io.Discard, stdin) // the end, or any error: the parent is gone
	}()
	roots, err := certificate.Roots(order.CAFile)
	if err != nil {
		return err
	}
	choose, err := place.Gate(order.Gate)
	if err != nil {
		return err
	}
	dialer := dial.New(roots)
	defer dialer.Keeper.Close()
	a := &attack{order: order, connect: users.Of(order.Tokens, dialer, choose).Connect}
	a.run(ctx)
	return json.NewEncoder(stdout).Encode(Counts{a.connections.Load(), a.logIns.Load(), a.refused.Load()})
}
