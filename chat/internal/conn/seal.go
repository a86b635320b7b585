package conn

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"net"
	"time"
)

// seal is TLS between a socket and its frames. crypto/tls reads and writes through it,
// and sees whole records only:
//
//   - What arrives is kept here until a record is complete, so that reading never waits
//     inside tls.Conn, with its deep stack.
//   - What is written goes into the write queue, so that the flushers and the
//     non-blocking write are the same with TLS and without.
//
// The handshake is the exception: it reads and writes the socket itself.
type seal struct {
	net.Conn // TCP, for the handshake and for tls.Conn's sake
	socket   *socket
	queue    *writeQueue
	tls      *tls.Conn
	shaken   bool // set before anybody reads or writes frames
	// header is that of the handshake's present record, as far as it has arrived.
	header  [recordHeader]byte
	headers int
	// idle is how much tls.Conn read since it last gave anything, which it may keep.
	idle int

	// Owned by the reader.
	in      *[]byte // borrowed: what has arrived and tls.Conn has not read; nil if nothing
	at      int     // how much of in was read
	left    int     // how much of a whole record is to be read
	drained bool    // tls.Conn has nothing more to give
	partial bool    // partialRecord was taken from the budget
	kept    int     // taken from the budget for what tls.Conn keeps
}

const (
	recordHeader = 5
	// maxRecord is the longest record: 16 KiB, and what TLS 1.3 may add.
	maxRecord = recordHeader + 16<<10 + 256
	// partialRecord is held while the rest of a record is awaited.
	partialRecord = maxRecord + readSize
	// maxIdle is the most that tls.Conn may read without giving anything: a message of the
	// handshake, with the longest keys and tickets; afterwards, that the client renews its
	// key. It collects messages of up to 256 KiB, which no client of ours sends.
	maxIdleShaking = 16 << 10
	maxIdle        = 2 << 10
	// helloRecord fits Hello, with room for padding.
	helloRecord = recordHeader + maxHello + 1<<10
	// freeRecord is how long a record may be until its memory counts. tls.Conn keeps a
	// buffer as long as the longest record that it read.
	freeRecord = 2 << 10
)

// errNothing tells tls.Conn and its caller that no whole record is here. tls.Conn goes
// on after a temporary error.
var errNothing net.Error = nothing{}

var errLongHandshake = errors.New("too much of a handshake")

type nothing struct{}

func (nothing) Error() string   { return "no whole record has arrived" }
func (nothing) Timeout() bool   { return false }
func (nothing) Temporary() bool { return true }

// handshake makes a connection one with TLS. It may wait until the deadline of the
// socket.
func (s *socket) handshake(ctx context.Context, q *writeQueue, conf *tls.Config) error {
	l := &seal{Conn: s.nc, socket: s, queue: q}
	l.tls = tls.Server(l, conf)
	if err := l.tls.HandshakeContext(ctx); err != nil {
		return err
	}
	l.shaken, l.idle = true, 0
	s.seal, q.seal = l, l
	return nil
}

// ready says whether tls.Conn may have something to give.
func (s *seal) ready() bool { return !s.drained }

// opened returns what tls.Conn has in a borrowed buffer, nil if that is nothing.
//
//go:noinline // an idle connection waits in socket.arrived, whose stack need not hold this
func (s *seal) opened() (*[]byte, error) {
	buf := borrow()
	n, err := s.read((*buf)[:cap(*buf)])
	if n > 0 {
		*buf = (*buf)[:n]
		return buf, nil
	}
	release(buf)
	if errors.Is(err, errNothing) {
		err = nil
	}
	return nil, err
}

// read reads from tls.Conn without waiting.
func (s *seal) read(b []byte) (int, error) {
	n, err := s.tls.Read(b)
	if n > 0 {
		s.idle = 0
	}
	s.drained = n == 0 && errors.Is(err, errNothing)
	return n, err
}

// fill waits until more has arrived.
func (s *seal) fill() error {
	if s.in != nil && !s.partial {
		if !s.socket.take(partialRecord) {
			return errNoRoom
		}
		s.partial = true
	}
	got, err := s.socket.wait()
	if err != nil {
		return err
	}
	s.drained = false
	if s.in == nil {
		s.in = got
		return nil
	}
	*s.in = append(*s.in, *got...)
	release(got)
	return nil
}

// Read gives tls.Conn a whole record, or errNothing.
func (s *seal) Read(b []byte) (int, error) {
	if !s.shaken {
		return s.shake(b)
	}
	if s.left == 0 {
		if err := s.record(); err != nil {
			return 0, err
		}
	}
	n := copy(b, (*s.in)[s.at:s.at+s.left])
	s.at += n
	s.left -= n
	if s.at == len(*s.in) {
		release(s.in)
		s.in, s.at = nil, 0
	}
	return n, nil
}

// shake reads for the handshake, never beyond a record: what the client sends behind its
// last one is to be read as whole records.
func (s *seal) shake(b []byte) (int, error) {
	inHeader := s.headers < recordHeader
	want := s.left
	if inHeader {
		want = recordHeader - s.headers
	}
	n, err := s.Conn.Read(b[:min(len(b), want)])
	if s.idle += n; s.idle > maxIdleShaking {
		return 0, errLongHandshake
	}
	if !inHeader {
		s.left -= n
	} else if s.headers += copy(s.header[s.headers:], b[:n]); s.headers == recordHeader {
		s.left = int(binary.BigEndian.Uint16(s.header[3:]))
	}
	if s.headers == recordHeader && s.left == 0 {
		s.headers = 0
	}
	return n, err
}

// record finds the next whole record in what has arrived.
func (s *seal) record() error {
	if s.in == nil {
		return errNothing
	}
	if s.at > 0 { // what is left stays at the beginning while the rest is awaited
		*s.in = (*s.in)[:copy(*s.in, (*s.in)[s.at:])]
		s.at = 0
	}
	have := *s.in
	if len(have) < recordHeader {
		return errNothing
	}
	n := recordHeader + int(binary.BigEndian.Uint16(have[3:]))
	if n > maxRecord { // let tls.Conn say what is wrong
		s.left = len(have)
		return nil
	}
	if s.socket.share == nil && n > helloRecord {
		return protocolError{errors.New("the first record is too long")}
	}
	if len(have) < n {
		return errNothing
	}
	if s.partial {
		s.socket.give(partialRecord)
		s.partial = false
	}
	if s.idle > maxIdle {
		return protocolError{errLongHandshake}
	}
	s.idle += n
	if err := s.keep(n); err != nil {
		return err
	}
	s.left = n
	return nil
}

// keep counts what tls.Conn keeps for its longest record.
func (s *seal) keep(n int) error {
	if more := n - freeRecord - s.kept; more > 0 && s.socket.share != nil {
		if !s.socket.take(more) {
			return errNoRoom
		}
		s.kept += more
	}
	return nil
}

// ended gives back what the reader holds. Nothing is read afterwards.
func (s *seal) ended() {
	if s.in != nil {
		release(s.in)
		s.in = nil
	}
	if s.partial {
		s.socket.give(partialRecord)
	}
	s.socket.give(s.kept)
	s.partial, s.kept = false, 0
}

// Write takes a record of tls.Conn.
func (s *seal) Write(b []byte) (int, error) {
	if !s.shaken {
		return s.Conn.Write(b)
	}
	return len(b), s.queue.record(b)
}

// SetWriteDeadline does nothing after the handshake: the write queue has deadlines of
// its own.
func (s *seal) SetWriteDeadline(t time.Time) error {
	if s.shaken {
		return nil
	}
	return s.Conn.SetWriteDeadline(t)
}
