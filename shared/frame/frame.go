// Package frame is the byte format of a client connection: a 4-byte big-endian
// length, then that many bytes holding one protobuf message.
package frame

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"
)

// HeaderLen is the length of the prefix in bytes.
const HeaderLen = 4

// Errors of Read and ReadBody for what a peer must not send.
var (
	// ErrTooLarge: the announced length is over the reader's limit.
	ErrTooLarge = errors.New("frame is larger than allowed")
	// ErrEmpty: a length of zero; every message has at least one field.
	ErrEmpty = errors.New("frame is empty")
	// ErrUndecodable: the body is not the message that is read; only Read returns it.
	ErrUndecodable = errors.New("the frame cannot be decoded")
)

// Length reads the length out of a header and checks it against the limit.
func Length(header [HeaderLen]byte, limit int) (int, error) {
	n := binary.BigEndian.Uint32(header[:])
	switch {
	case n == 0:
		return 0, ErrEmpty
	case uint64(n) > uint64(limit):
		return 0, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, n, limit)
	}
	return int(n), nil
}

// growStep bounds how much is allocated before the bytes have arrived, so that a
// peer that announces much and sends little costs little.
const growStep = 16 << 10

// ReadBody reads the n bytes after a header into buf, growing it as the bytes
// arrive, and returns the slice that holds them. A stream that ends early gives
// io.ErrUnexpectedEOF.
func ReadBody(r io.Reader, n int, buf []byte) ([]byte, error) {
	buf = buf[:0]
	for len(buf) < n {
		step := min(n-len(buf), growStep)
		if free := cap(buf) - len(buf); free < step {
			buf = append(make([]byte, 0, min(max(2*cap(buf), len(buf)+step), n)), buf...)
		}
		part := buf[len(buf) : len(buf)+step]
		if _, err := io.ReadFull(r, part); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		buf = buf[:len(buf)+step]
	}
	return buf, nil
}

// Read reads one frame into m. buf is scratch space; the slice that it returns
// is for the next call. io.EOF means that the stream ended between two frames.
func Read(r io.Reader, limit int, buf []byte, m proto.Message) ([]byte, error) {
	var header [HeaderLen]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return buf, err
	}
	n, err := Length(header, limit)
	if err != nil {
		return buf, err
	}
	body, err := ReadBody(r, n, buf)
	if err != nil {
		return buf, err
	}
	if err := proto.Unmarshal(body, m); err != nil {
		return body, fmt.Errorf("%w: %w", ErrUndecodable, err)
	}
	return body, nil
}

// Append appends m as one frame to dst. An error means that m cannot be
// encoded (invalid UTF-8 in a string); dst is then returned unchanged.
func Append(dst []byte, m proto.Message) ([]byte, error) {
	at := len(dst)
	out, err := proto.MarshalOptions{}.MarshalAppend(append(dst, 0, 0, 0, 0), m)
	if err != nil {
		return dst[:at], fmt.Errorf("encode frame: %w", err)
	}
	binary.BigEndian.PutUint32(out[at:], uint32(len(out)-at-HeaderLen))
	return out, nil
}
