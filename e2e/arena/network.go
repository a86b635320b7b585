package arena

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"

	"github.com/msrchat/msrchat/shared/backend"
)

// Pair is two kinds of processes that talk over connections which the arena can
// break.
type Pair string

// The pairs.
const (
	ClientChat Pair = "client-chat"
	ChatChat   Pair = "chat-chat"
	ChatMySQL  Pair = "chat-mysql"
	ChatRedis  Pair = "chat-redis"
	GateStatus Pair = "gate-status"
	StatusChat Pair = "status-chat"
)

// Pairs are all of them.
var Pairs = []Pair{ClientChat, ChatChat, ChatMySQL, ChatRedis, GateStatus, StatusChat}

// Wire is a proxy that connections of a pair go through: those of one chat
// server, or of one status server for the pairs with status. Its methods may be
// called from any goroutine.
type Wire struct {
	Pair Pair
	Name string
	Addr string // where to connect instead

	mu    sync.Mutex // makes one fault of many calls
	proxy *toxiproxy.Proxy
}

// network makes the wires and takes them down.
type network struct {
	server *toxiproxy.ApiServer // only what proxies report to; it serves nothing
	wires  []*Wire
}

func newNetwork() *network {
	return &network{server: toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())}
}

// add opens a wire to an address. If somebody else has taken the port
// meanwhile, another one is tried.
func (n *network) add(pair Pair, name, to string) (*Wire, error) {
	const attempts = 5
	var err error
	for range attempts {
		var addr string
		if addr, err = local(); err != nil {
			break
		}
		proxy := toxiproxy.NewProxy(n.server, fmt.Sprintf("%s %s", pair, name), addr, to)
		if err = proxy.Start(); err != nil {
			continue
		}
		w := &Wire{Pair: pair, Name: name, Addr: addr, proxy: proxy}
		n.wires = append(n.wires, w)
		return w, nil
	}
	return nil, fmt.Errorf("wire %s of %s: %w", pair, name, err)
}

func (n *network) close() {
	for _, w := range n.wires {
		w.proxy.Stop()
	}
}

// local is a free loopback address.
func local() (string, error) {
	port, err := backend.PickPort()
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), err
}

// Cut closes the wire's connections and refuses new ones until Mend.
func (w *Wire) Cut() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.proxy.Stop()
	return nil
}

// Reset resets each connection as soon as something is sent on it, until Mend.
func (w *Wire) Reset() error { return w.add(`{"type":"reset_peer"`, `}`) }

// Hang discards what is sent, both ways, and keeps the connections, until Mend.
func (w *Wire) Hang() error { return w.add(`{"type":"timeout"`, `}`) }

// Delay delays what is sent by 100 to 300 ms each way, until Mend.
func (w *Wire) Delay() error {
	return w.add(`{"type":"latency"`, `,"attributes":{"latency":200,"jitter":100}}`)
}

// add puts a toxic on both directions.
func (w *Wire) add(head, tail string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, stream := range []string{"upstream", "downstream"} {
		toxic := head + `,"stream":"` + stream + `"` + tail
		if _, err := w.proxy.Toxics.AddToxicJson(strings.NewReader(toxic)); err != nil {
			return fmt.Errorf("wire %s of %s: %w", w.Pair, w.Name, err)
		}
	}
	return nil
}

// Mend ends every fault of the wire.
func (w *Wire) Mend() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.proxy.Toxics.ResetToxics(context.Background())
	if err := w.proxy.Start(); err != nil && !errors.Is(err, toxiproxy.ErrProxyAlreadyStarted) {
		return fmt.Errorf("wire %s of %s: %w", w.Pair, w.Name, err)
	}
	return nil
}
