package conn_test

import (
	"testing"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"

	"github.com/msrchat/msrchat/chat/internal/conn"
)

// The reader of a client that is quiet for a moment hands over to another. A frame
// that begins about then and comes in pieces is served like any other.
func TestAFrameInPiecesAfterQuiet(t *testing.T) {
	t.Parallel()
	const heartbeat = 4 * time.Second // a reader hands over after one second
	w := newWorld(t, func(_ *world, o *conn.Options) { o.Heartbeat = heartbeat })
	c := w.login(t, 1)
	ping := encoded(t, &chatv1.ClientFrame{RequestId: 7, Body: &chatv1.ClientFrame_Ping{Ping: &chatv1.Ping{}}})
	for _, cuts := range [][]int{{2}, {4}, {2, 5}} {
		last := 0
		for _, cut := range append(cuts, len(ping)) {
			if _, err := c.nc.Write(ping[last:cut]); err != nil {
				t.Fatal(err)
			}
			last = cut
			if cut < len(ping) {
				time.Sleep(heartbeat/4 + 100*time.Millisecond) // the pause is what is tested
			}
		}
		if f := c.read(); f.GetPong() == nil || f.GetRequestId() != 7 {
			t.Errorf("cut at %v the answer is %v", cuts, f)
		}
		c.pong()
	}
}
