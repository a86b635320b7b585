package faults

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/client/store"
	"github.com/msrchat/msrchat/proof/account"
)

// visitor always goes to one chat server.
type visitor struct {
	who    account.Account
	server client.Endpoint
}

// Assign is client.Assigner.
func (v visitor) Assign(context.Context, client.Token, []string) (client.Assignment, error) {
	return client.Assignment{Server: v.server, ExpiresAt: time.Now().Add(time.Minute)}, nil
}

// visitLimit bounds one visit; the next one follows. On a machine with too much
// to do even a healthy system takes seconds for it.
const visitLimit = 15 * time.Second

// expect makes the visitors' accounts.
func (p *people) expect(ctx context.Context) error {
	servers := p.arena.Chats()
	all, err := account.Make(ctx, p.db, account.Order{Run: "visit", Count: len(servers)})
	if err != nil {
		return err
	}
	for instance, address := range servers {
		at := client.Endpoint{Instance: instance, Address: address, TLSServerName: p.arena.TLSServerName()}
		p.visitors = append(p.visitors, visitor{all[len(p.visitors)], at})
	}
	return nil
}

// visit has the gate assign a server, and a message pass between every two chat
// servers, both ways.
func (p *people) visit(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, visitLimit)
	defer cancel()
	if _, err := p.gate.Assign(ctx, p.visitors[0].who.Sessions[0].Token, nil); err != nil {
		return fmt.Errorf("the gate assigns nothing: %w", err)
	}
	clients := make([]*client.Client, len(p.visitors))
	for i, v := range p.visitors {
		c, err := client.Open(ctx, client.Options{
			Gate: v, Session: v.who.Sessions[0], Store: store.NewMemory(1), Program: "msrchat-faults", FromNow: true,
			TLS: p.arena.TLS(),
		})
		if err != nil {
			return err
		}
		defer c.Close()
		clients[i] = c
	}
	for i, c := range clients {
		switch link, err := c.WaitOnline(ctx); {
		case err != nil:
			return fmt.Errorf("visit %s: %w", p.visitors[i].server.Instance, err)
		case link.Instance != p.visitors[i].server.Instance:
			return fmt.Errorf("visit %s: came to %s", p.visitors[i].server.Instance, link.Instance)
		}
	}
	return p.talkAll(ctx, clients)
}

// talkAll has every visitor write to every other one and wait for what they
// wrote.
func (p *people) talkAll(ctx context.Context, clients []*client.Client) error {
	text := fmt.Sprint("are you there? ", time.Now().UnixNano())
	for i, c := range clients { // first, so that everybody shows what comes after
		for j, other := range p.visitors {
			if i == j {
				continue
			}
			if _, err := c.OpenDirect(ctx, other.who.Name); err != nil {
				return err
			}
		}
	}
	var all errgroup.Group
	for i, c := range clients {
		all.Go(func() error { return heard(ctx, c, text, len(clients)-1) })
		for j, other := range p.visitors {
			if i == j {
				continue
			}
			to, err := c.Contact(ctx, other.who.Name)
			if err == nil {
				_, err = c.Send(ctx, to.ID, text)
			}
			if err != nil {
				return errors.Join(err, all.Wait())
			}
		}
	}
	return all.Wait()
}

// heard waits until n others' messages with a text were shown.
func heard(ctx context.Context, c *client.Client, text string, n int) error {
	for n > 0 {
		select {
		case e, ok := <-c.Events():
			if !ok {
				return errors.New("a visitor's client ended")
			}
			if r, is := e.(client.Received); is && !r.Mine && r.Message.Text() == text {
				n--
			}
		case <-ctx.Done():
			return fmt.Errorf("%d of a visitor's messages have not come: %w", n, ctx.Err())
		}
	}
	return nil
}
