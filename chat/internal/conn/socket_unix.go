//go:build unix

package conn

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
)

// tryRead is socket.try: true means that got or err is set.
func (s *socket) tryRead(fd uintptr) bool {
	buf := borrow()
	for {
		n, err := syscall.Read(int(fd), (*buf)[:cap(*buf)])
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case n > 0:
			*buf = (*buf)[:n]
			s.got, s.err = buf, nil
			return true
		}
		release(buf)
		switch {
		case errors.Is(err, syscall.EAGAIN):
			return false
		case err == nil:
			s.err = io.EOF
		default:
			s.err = os.NewSyscallError("read", err)
		}
		return true
	}
}

// attempt writes as much as the kernel takes without blocking. It is for one
// goroutine.
type attempt struct {
	b   []byte
	n   int
	err error
	try func(fd uintptr) bool // made once
}

func newAttempt() *attempt {
	a := &attempt{}
	a.try = func(fd uintptr) bool {
		a.n, a.err = syscall.Write(int(fd), a.b)
		return true // do not wait, whatever the result
	}
	return a
}

// write returns how many bytes were taken. Fewer than all, without an error, mean
// that the client reads slowly.
func (a *attempt) write(raw syscall.RawConn, b []byte) (int, error) {
	a.b = b
	err := raw.Write(a.try)
	a.b = nil
	switch {
	case err != nil:
		return 0, err
	case errors.Is(a.err, syscall.EAGAIN), errors.Is(a.err, syscall.EINTR):
		return 0, nil
	default:
		return max(a.n, 0), a.err
	}
}

// rawConn returns the socket behind a connection, nil where there is none.
func rawConn(nc net.Conn) syscall.RawConn {
	if c, ok := nc.(syscall.Conn); ok {
		if raw, err := c.SyscallConn(); err == nil {
			return raw
		}
	}
	return nil
}
