//go:build !unix

package conn

import (
	"net"
	"syscall"
)

// attempt is for systems whose sockets can be written without waiting.
type attempt struct{}

func newAttempt() *attempt { return &attempt{} }

func (*attempt) write(syscall.RawConn, []byte) (int, error) { return 0, nil }

// rawConn returns nil: every write waits in a goroutine of its own.
func rawConn(net.Conn) syscall.RawConn { return nil }
