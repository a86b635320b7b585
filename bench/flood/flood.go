// Package flood attacks a fleet on this machine in the ways that need no account or only
// ordinary ones: clients that ask and never read, clients that send a frame byte by byte,
// connections that say nothing, and log-ins as nobody from many addresses. It measures
// nothing itself.
package flood

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/frame"
	"github.com/msrchat/msrchat/shared/retry"
	"github.com/msrchat/msrchat/shared/wire"
)

// Plan says how many attack at the same time. Each comes back when it was sent away.
type Plan struct {
	// Readers ask for pages and read none, over Accounts accounts.
	Readers  int `json:"readers"`
	Accounts int `json:"accounts"`
	// Slow send a frame byte by byte: half of them Hello, half of them a message.
	Slow int `json:"slow"`
	// Silent connect and say nothing.
	Silent int `json:"silent"`
	// Sources are the addresses that log in as nobody.
	Sources int `json:"sources"`
	// Again is how soon one comes back.
	Again time.Duration `json:"again"`
}

// Validate says what is wrong.
func (p Plan) Validate() error {
	switch {
	case p.Readers < 0 || p.Slow < 0 || p.Silent < 0 || p.Readers+p.Slow+p.Silent > 15_000:
		return fmt.Errorf("%d connections: between 0 and 15000 are possible", p.Readers+p.Slow+p.Silent)
	case p.Accounts < 2 || p.Accounts%2 != 0:
		return fmt.Errorf("%d accounts: an even number of at least 2 is needed, they talk in pairs", p.Accounts)
	case p.Again <= 0:
		return errors.New("those who were sent away must wait for some time")
	case p.Sources < 0 || p.Sources > 250:
		return fmt.Errorf("%d sources: between 0 and 250 are possible", p.Sources)
	}
	return nil
}

// Counts are what happened: connections of all kinds that were opened, log-ins that were
// tried, and those that were turned away without a look at the password.
type Counts struct {
	Connections int64 `json:"connections"`
	LogIns      int64 `json:"log_ins"`
	Refused     int64 `json:"refused"`
}

type attack struct {
	order Order
	// connect logs the i-th account in at a chat server.
	connect                      func(ctx context.Context, i int) (*wire.Conn, error)
	connections, logIns, refused atomic.Int64
}

// run attacks until ctx ends, and returns when all connections are closed.
func (a *attack) run(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	p := a.order.Plan
	again := func(n int, one func(ctx context.Context, i int)) {
		for i := range n {
			all.Go(func() {
				for ctx.Err() == nil {
					one(ctx, i)
					retry.Sleep(ctx, p.Again)
				}
			})
		}
	}
	again(p.Readers, func(ctx context.Context, i int) { a.ask(ctx, i%p.Accounts) })
	again(p.Slow/2, func(ctx context.Context, i int) { a.slowHello(ctx, i) })
	again(p.Slow-p.Slow/2, func(ctx context.Context, i int) { a.slowMessage(ctx, i%p.Accounts) })
	again(p.Silent, func(ctx context.Context, i int) { a.silent(ctx, i) })
	for i := range p.Sources {
		all.Go(func() { a.logIn(ctx, i) })
	}
}

// ask asks for one page after the other until the connection breaks.
func (a *attack) ask(ctx context.Context, account int) {
	c, err := a.connect(ctx, account)
	if err != nil {
		return
	}
	defer c.Close()
	defer context.AfterFunc(ctx, c.Close)()
	a.connections.Add(1)
	for id := uint64(2); ctx.Err() == nil; id++ {
		request, err := frame.Append(nil, &chatv1.ClientFrame{RequestId: id, Body: &chatv1.ClientFrame_History{
			History: &chatv1.History{ConversationId: a.order.Conversations[account]},
		}})
		if err != nil || c.Write(request) != nil {
			return
		}
		if id%8 == 0 && !retry.Sleep(ctx, 100*time.Millisecond) {
			return
		}
	}
}

// slowHello sends the beginning of Hello, a byte a second.
func (a *attack) slowHello(ctx context.Context, i int) {
	a.raw(ctx, i, func(nc net.Conn) error {
		for _, b := range []byte{0, 0, 0, 200, 8, 1, 18, 190, 1, 8, 1, 18, 32} {
			if _, err := nc.Write([]byte{b}); err != nil || !retry.Sleep(ctx, time.Second) {
				return err
			}
		}
		return nil
	})
}

// slowMessage sends a long message, a hundred bytes a second.
func (a *attack) slowMessage(ctx context.Context, account int) {
	c, err := a.connect(ctx, account)
	if err != nil {
		return
	}
	defer c.Close()
	defer context.AfterFunc(ctx, c.Close)()
	a.connections.Add(1)
	if c.Write([]byte{0, 0, 0x3f, 0xff}) != nil {
		return
	}
	for c.Write(make([]byte, 100)) == nil {
		if !retry.Sleep(ctx, time.Second) {
			return
		}
	}
}

// silent waits until the server closes.
func (a *attack) silent(ctx context.Context, i int) {
	a.raw(ctx, i, func(nc net.Conn) error {
		_, err := nc.Read(make([]byte, 1))
		return err
	})
}

// raw opens a connection from one of many addresses.
func (a *attack) raw(ctx context.Context, i int, use func(net.Conn) error) {
	dialer := net.Dialer{LocalAddr: source(1, i)}
	nc, err := dialer.DialContext(ctx, "tcp", a.order.Servers[i%len(a.order.Servers)])
	if err != nil {
		return
	}
	defer nc.Close()
	defer context.AfterFunc(ctx, func() { _ = nc.Close() })()
	a.connections.Add(1)
	_ = use(nc) // the server ends it
}

// source is a loopback address of a block.
func source(block byte, i int) *net.TCPAddr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, block, byte(1 + i%250)}), 0))
}
