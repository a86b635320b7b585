package wire

import (
	"io"
	"sync"

	"github.com/msrchat/msrchat/shared/frame"
)

// scanBuffer holds a burst of short frames; a longer frame grows it.
const scanBuffer = 16 << 10

// maxPooled keeps a buffer that grew for one long frame out of the pool.
const maxPooled = 64 << 10

// buffers lends Scan its space while something arrives.
var buffers = sync.Pool{New: func() any { return new(make([]byte, 0, scanBuffer)) }}

// Scan reads frames until the stream ends. Each body is handed to fn, which must
// not keep it; drained is called whenever all that had arrived was handed out,
// which is the moment to write what came of it.
//
// A quiet stream holds no buffer: one is borrowed when a header has arrived, and
// given back when nothing is left in it. limit bounds a frame. Scan returns the
// first error of the stream, of a header or of fn; io.EOF means that the stream
// ended between two frames.
func Scan(r io.Reader, limit int, fn func(body []byte) error, drained func()) error {
	header := new([frame.HeaderLen]byte)
	for {
		if _, err := io.ReadFull(r, header[:]); err != nil {
			return err
		}
		lent := buffers.Get().(*[]byte)
		buf, err := frame.Burst(r, limit, append((*lent)[:0], header[:]...), fn)
		if cap(buf) <= maxPooled {
			*lent = buf[:0]
			buffers.Put(lent)
		}
		if err != nil {
			return err
		}
		drained()
	}
}
