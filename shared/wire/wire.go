// Package wire is one connection of the chat protocol, seen from its client: it
// is dialled over TCP or TLS and introduced, keeps itself alive, and hands out
// what arrives. Reconnecting, sending again, pulling, and matching answers with
// requests are up to its users: the client library, the bench and the probe.
//
// An idle connection holds one goroutine, the one in Serve, and no buffer.
package wire

import (
	"errors"
	"time"
)

// Protocol is the version of chat.proto that this package speaks.
const Protocol = 1

const (
	// maxFrame is the largest frame taken from a server: a page of 256 texts of
	// the longest kind has 4 MiB.
	maxFrame = 8 << 20
	// dialTimeout bounds TCP and TLS, helloTimeout the wait for Welcome. A server
	// answers Hello after two look-ups; ten seconds is a server in trouble.
	dialTimeout  = 5 * time.Second
	helloTimeout = 10 * time.Second
	// writeTimeout bounds one write. The server's receive buffer is full that
	// long only when it stopped reading.
	writeTimeout = 10 * time.Second
	// pingTimeout bounds a ping. It has six bytes: where they do not fit,
	// megabytes before them have not been read. It is short because a Keeper
	// writes one ping after the other.
	pingTimeout = time.Second
	// goodbyeTimeout is how long a Goodbye is looked for after a write failed: it
	// says why the server stopped reading.
	goodbyeTimeout = 200 * time.Millisecond
)

// A server's heartbeat is believed within these limits.
const (
	minHeartbeat     = 10 * time.Millisecond
	maxHeartbeat     = 10 * time.Minute
	defaultHeartbeat = 20 * time.Second
)

// Errors that end a connection, besides *GoodbyeError, net.ErrClosed after Close,
// and those of the network.
var (
	// ErrSilent: the server sent nothing for two heartbeats.
	ErrSilent = errors.New("the server is silent")
	// ErrStuck: the server does not read what it is sent.
	ErrStuck = errors.New("the server does not read")
	// ErrProtocol: the server sent what the protocol does not allow.
	ErrProtocol = errors.New("the server broke the protocol")
)
