package client_test

import (
	"testing"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/client/store"
)

// BenchmarkSend sends through a fake server in the same process and waits for
// each acknowledgement, with a number of messages under way.
func BenchmarkSend(b *testing.B) {
	for name, ahead := range map[string]int{"1 outstanding": 1, "8 outstanding": 8} {
		b.Run(name, func(b *testing.B) {
			w := newWorld(b, 1)
			c, err := client.Open(b.Context(), client.Options{
				Gate: w.api, Session: w.session["alice"], Store: store.NewMemory(0), SendOnly: true,
			})
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			go func() {
				for range c.Events() { //nolint:revive // nobody is interested
				}
			}()
			var waiting []client.MessageID
			settle := func(n int) {
				for ; len(waiting) > n; waiting = waiting[1:] {
					if _, err := c.Wait(b.Context(), waiting[0]); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportAllocs()
			for b.Loop() {
				out, err := c.Send(b.Context(), w.conv, "hello")
				if err != nil {
					b.Fatal(err)
				}
				waiting = append(waiting, out.ID)
				settle(ahead - 1)
			}
			settle(0)
		})
	}
}
