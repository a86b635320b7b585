package frame

import "io"

// Burst reads until what was read ends with a whole frame and hands the bodies to
// fn, so that frames that arrive together are read together. buf holds what was
// read before, usually a header; fn must not keep its argument. limit bounds a
// frame.
//
// The slice that it returns is for the next call. The error is fn's, a wrong
// header's (see Length) or the stream's.
func Burst(r io.Reader, limit int, buf []byte, fn func(body []byte) error) ([]byte, error) {
	for {
		rest, err := split(buf, limit, fn)
		if err != nil || len(rest) == 0 {
			return buf, err
		}
		buf = buf[:copy(buf, rest)]
		if len(buf) == cap(buf) { // grown as the bytes arrive, not as announced
			buf = append(make([]byte, 0, 2*cap(buf)), buf...)
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if n == 0 && err != nil {
			if err == io.EOF { //nolint:errorlint // a Reader returns io.EOF itself
				err = io.ErrUnexpectedEOF
			}
			return buf, err
		}
	}
}

// split hands the whole frames of buf to fn and returns the beginning of the
// next one.
func split(buf []byte, limit int, fn func([]byte) error) (rest []byte, err error) {
	for len(buf) >= HeaderLen {
		n, err := Length([HeaderLen]byte(buf), limit)
		if err != nil {
			return buf, err
		}
		end := HeaderLen + n
		if len(buf) < end {
			return buf, nil
		}
		if err := fn(buf[HeaderLen:end]); err != nil {
			return buf, err
		}
		buf = buf[end:]
	}
	return buf, nil
}
