package fuzz

import (
	"context"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
)

// honest is somebody with a connection who does as the servers ask: when there are too many
// on theirs they go to the next. One goroutine at a time uses it.
type honest struct {
	run    *run
	who    *person
	server int
	push   func(*chatv1.ServerFrame)
	conn   *conn
}

// honest connects a person to the server of that number. push, if not nil, gets what comes
// unasked.
func (r *run) honest(
	ctx context.Context, who *person, server int, push func(*chatv1.ServerFrame),
) (*honest, error) {
	h := &honest{run: r, who: who, server: server, push: push}
	return h, h.connect(ctx)
}

func (h *honest) connect(ctx context.Context) error {
	c, err := h.run.connect(ctx, h.who, h.server)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.push = h.push
	c.mu.Unlock()
	h.conn = c
	return nil
}

// here sees to it that there is a connection, and says whether it is a new one.
func (h *honest) here(ctx context.Context) (moved bool, err error) {
	if !h.conn.leaves() {
		return false, nil
	}
	h.conn.close()
	h.server++
	return true, h.connect(ctx)
}

// ask makes a request and waits for its result, on another server if it must.
func (h *honest) ask(ctx context.Context, f *chatv1.ClientFrame) (*chatv1.ServerFrame, error) {
	for {
		answer, err := h.conn.ask(ctx, f)
		if err == nil || !h.conn.leaves() {
			return answer, err
		}
		if _, err := h.here(ctx); err != nil {
			return nil, err
		}
	}
}

func (h *honest) close() {
	if h != nil && h.conn != nil {
		h.conn.close()
	}
}

// leaves says that the server asked for it.
func (c *conn) leaves() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.goodbye.GetCode() == chatv1.GoodbyeCode_GOODBYE_CODE_REBALANCE
}
