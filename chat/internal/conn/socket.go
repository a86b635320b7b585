package conn

import (
	"errors"
	"io"
	"net"
	"syscall"

	"github.com/msrchat/msrchat/chat/internal/budget"
)

// socket is the incoming side of a connection, with TLS or without. Its methods are for
// the connection's reader.
//
// While it waits it holds no buffer and needs little stack: it waits for the kernel to
// have something, and borrows a buffer only then.
type socket struct {
	nc   net.Conn        // TCP
	raw  syscall.RawConn // nil where reads and writes may block
	seal *seal           // nil without TLS
	// share counts what waits in the middle of a frame; nil until the client is admitted.
	share *budget.Share
	// try reads what has arrived into a borrowed buffer, got, or says to wait. It is made
	// once.
	try func(fd uintptr) bool
	got *[]byte
	err error
}

// open prepares a socket on a TCP connection.
func (s *socket) open(nc net.Conn) {
	s.nc, s.raw = nc, rawConn(nc)
	s.try = s.tryRead
}

// readSize is how much is read at a time: some dozen short messages.
const readSize = 4 << 10

// borrow lends a buffer with room to read into.
func borrow() *[]byte {
	buf := buffers.Get().(*[]byte)
	if cap(*buf) < readSize {
		*buf = make([]byte, 0, readSize)
	}
	return buf
}

// arrived waits until something has arrived and returns it in a borrowed buffer.
func (s *socket) arrived() (*[]byte, error) {
	for {
		if s.seal == nil {
			return s.wait()
		}
		if s.seal.ready() {
			if buf, err := s.seal.opened(); buf != nil || err != nil {
				return buf, err
			}
		}
		if err := s.seal.fill(); err != nil {
			return nil, err
		}
	}
}

// Read waits for more of a frame.
func (s *socket) Read(b []byte) (int, error) {
	if s.seal == nil {
		return s.nc.Read(b)
	}
	for {
		n, err := s.seal.read(b)
		if n > 0 || !errors.Is(err, errNothing) {
			return n, err
		}
		if err := s.seal.fill(); err != nil {
			return 0, err
		}
	}
}

// wait waits for bytes on the wire and returns them in a borrowed buffer.
func (s *socket) wait() (*[]byte, error) {
	if s.raw == nil {
		return s.waitBlocking()
	}
	err := s.raw.Read(s.try)
	got := s.got
	s.got = nil
	switch {
	case err != nil: // try was not called again, so it holds nothing
		return nil, err
	case s.err != nil:
		return nil, s.err
	}
	return got, nil
}

// waitBlocking is for connections that can only be read blocking.
func (s *socket) waitBlocking() (*[]byte, error) {
	buf := borrow()
	n, err := s.nc.Read((*buf)[:cap(*buf)])
	if n > 0 {
		*buf = (*buf)[:n]
		return buf, nil
	}
	release(buf)
	if err == nil {
		err = io.ErrNoProgress
	}
	return nil, err
}

// errNoRoom: the connection's account or network holds too much.
var errNoRoom = errors.New("the connections of this account hold too much")

// take takes memory from the budget. Before the client is admitted it does not count:
// there are few such connections, and not for long.
func (s *socket) take(n int) bool { return s.share == nil || s.share.Take(n) }

func (s *socket) give(n int) {
	if s.share != nil {
		s.share.Give(n)
	}
}

// admitted begins to count.
func (s *socket) admitted(share *budget.Share) {
	s.share = share
	if s.seal != nil {
		s.seal.partial = false // what waits there is counted from now on
	}
}

// ended gives back what the reader holds.
func (s *socket) ended() {
	if s.seal != nil {
		s.seal.ended()
	}
}
