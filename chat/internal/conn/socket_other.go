//go:build !unix

package conn

import (
	"net"
	"syscall"
)

// tryRead is not used here: see rawConn.
func (*socket) tryRead(uintptr) bool { return true }

// attempt is not used here: see rawConn.
type attempt struct{}

func newAttempt() *attempt { return &attempt{} }

func (*attempt) write(syscall.RawConn, []byte) (int, error) { return 0, nil }

// rawConn returns nil, so that reads borrow a buffer while they wait, and every write
// has a goroutine of its own, which may block.
func rawConn(net.Conn) syscall.RawConn { return nil }
