package conn

import (
	"context"
	"io"
	"net"
	"testing"
	"time"
)

// A write queue that no flusher takes, because too many wait or the server stops,
// is written all the same.
func TestNothingIsLeftUnwritten(t *testing.T) {
	stopped, stop := context.WithCancel(t.Context())
	stop()
	for name, f := range map[string]*flusher{
		"too many wait":    {ctx: t.Context(), due: make(chan *writeQueue)}, // room for none
		"stopped before":   {ctx: stopped, due: make(chan *writeQueue, 1)},
		"one that flushes": newFlusher(t.Context()),
	} {
		t.Run(name, func(t *testing.T) {
			server, client := sockets(t)
			q := queueOn(server, f)
			if !q.push([]byte("one")) || !q.last([]byte("two")) {
				t.Fatal("there was no room")
			}
			if got, err := io.ReadAll(client); err != nil || string(got) != "onetwo" {
				t.Errorf("the client got %q, %v", got, err)
			}
		})
	}
}

func TestAFlusherThatStopsLeavesWhatIsDueToOthers(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	f := &flusher{ctx: ctx, due: make(chan *writeQueue, 1)}
	server, client := sockets(t)
	q := queueOn(server, f)
	if !q.push(nil) || len(f.due) != 0 {
		t.Error("nothing is to be written, and that is due")
	}
	q.last([]byte("one"))
	if len(f.due) != 1 {
		t.Fatal("nothing is due")
	}
	cancel()
	go f.run()
	if got, err := io.ReadAll(client); err != nil || string(got) != "one" {
		t.Errorf("the client got %q, %v", got, err)
	}
}

// queueOn is a write queue on a socket, which it closes at the end.
func queueOn(nc net.Conn, f *flusher) *writeQueue {
	return &writeQueue{
		nc:     nc,
		raw:    rawConn(nc),
		shared: &queueGroup{timeout: time.Minute, flusher: f},
		done:   func() { _ = nc.Close() },
	}
}

// sockets are the two ends of a connection.
func sockets(t *testing.T) (server, client net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = client.Close(), server.Close() })
	_ = client.SetReadDeadline(time.Now().Add(time.Minute))
	return server, client
}

// What TLS writes by itself, because a client asks for new keys, is bounded while nobody
// takes it; what the writer has it make of frames is not.
func TestWhatTLSWritesByItselfIsBounded(t *testing.T) {
	server, _ := sockets(t)
	q := queueOn(server, &flusher{ctx: t.Context(), due: make(chan *writeQueue, 1)}) // nobody runs it
	record := make([]byte, 27)
	taken := 0
	for ; q.record(record) == nil; taken += len(record) {
		if taken > 1<<20 {
			t.Fatal("a megabyte waits")
		}
	}
	if taken < maxControl/2 || taken > maxControl {
		t.Errorf("%d bytes were taken", taken)
	}
	q.sealing = true
	if err := q.record(make([]byte, 16<<10)); err != nil {
		t.Errorf("a record of frames: %v", err)
	}
}
