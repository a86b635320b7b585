package peer

import (
	"context"
	"errors"
	"fmt"
	"sync"

	relayv1 "github.com/msrchat/msrchat/proto/msrchat/relay/v1"
	"github.com/msrchat/msrchat/shared/errs"

	"github.com/msrchat/msrchat/chat/internal/msglog"
)

// appends is one Append stream with the requests that wait for their answer.
type appends struct {
	stream relayv1.RelayService_AppendClient

	sending sync.Mutex // a stream takes one Send at a time

	mu      sync.Mutex // owns the fields below
	last    uint64
	waiting map[uint64]chan *relayv1.AppendResponse
	err     error
}

func newAppends(stream relayv1.RelayService_AppendClient) *appends {
	return &appends{stream: stream, waiting: make(map[uint64]chan *relayv1.AppendResponse)}
}

// errBadAnswer is an answer that does not fit the request.
var errBadAnswer = errors.New("the conversation's owner gave an answer that does not fit")

// append offers events to the peer and waits for its answer. An error leaves the
// outcome unknown, unless it is the peer's answer. After errBadAnswer another try
// would be answered the same.
func (l *link) append(ctx context.Context, conversation uint64, events []msglog.Event) ([]msglog.Result, error) {
	l.mu.Lock()
	calls := l.appends
	l.mu.Unlock()
	if calls == nil {
		return nil, errs.Wrap(errs.CodeUnavailable, errDown, "the conversation's owner is away")
	}
	request := &relayv1.AppendRequest{ConversationId: conversation, Entries: make([]*relayv1.Entry, len(events))}
	for i := range events {
		e := &events[i]
		request.Entries[i] = &relayv1.Entry{
			SenderId:    e.Sender,
			ClientMsgId: e.ID[:],
			Kind:        uint32(e.Kind),
			Body:        e.Body,
			Connection:  e.Connection,
			Uncounted:   e.Uncounted,
		}
	}
	if l.revision.Load() == 0 {
		l.nameMembers(request)
	}
	response, err := calls.call(ctx, request)
	if err != nil {
		return nil, errs.Wrap(errs.CodeUnavailable, err, "the conversation's owner did not answer")
	}
	return results(response, len(events))
}

func results(response *relayv1.AppendResponse, n int) ([]msglog.Result, error) {
	if code := response.GetErrorCode(); code != "" {
		return nil, errs.New(errs.Known(errs.Code(code)), "%s", response.GetErrorText())
	}
	if len(response.GetResults()) != n {
		return nil, fmt.Errorf("%w: %d results for %d entries", errBadAnswer, len(response.GetResults()), n)
	}
	out := make([]msglog.Result, n)
	for i, r := range response.GetResults() {
		out[i] = msglog.Result{
			Seq:       r.GetSeq(),
			Ordinal:   r.GetOrdinal(),
			CreatedAt: r.GetCreatedAtMs(),
			Existing:  r.GetExisting(),
		}
		if code := r.GetErrorCode(); code != "" {
			out[i].Err = errs.New(errs.Known(errs.Code(code)), "%s", r.GetErrorText())
		}
	}
	return out, nil
}

func (a *appends) call(ctx context.Context, request *relayv1.AppendRequest) (*relayv1.AppendResponse, error) {
	answer := make(chan *relayv1.AppendResponse, 1)
	a.mu.Lock()
	if a.err != nil {
		a.mu.Unlock()
		return nil, a.err
	}
	a.last++
	request.RequestId = a.last
	a.waiting[request.GetRequestId()] = answer
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		delete(a.waiting, request.GetRequestId())
		a.mu.Unlock()
	}()
	a.sending.Lock()
	err := a.stream.Send(request)
	a.sending.Unlock()
	if err != nil {
		return nil, fmt.Errorf("send append: %w", err)
	}
	select {
	case response, ok := <-answer:
		if !ok {
			return nil, errDown
		}
		return response, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// receive hands out the answers until the stream ends.
func (a *appends) receive() error {
	for {
		response, err := a.stream.Recv()
		if err != nil {
			return fmt.Errorf("receive answers to appends: %w", err)
		}
		a.mu.Lock()
		answer, ok := a.waiting[response.GetRequestId()]
		delete(a.waiting, response.GetRequestId())
		a.mu.Unlock()
		if ok {
			answer <- response
		}
	}
}

// fail ends all calls that wait. Their outcome is unknown.
func (a *appends) fail(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err == nil {
		err = errDown
	}
	a.err = err
	for id, answer := range a.waiting {
		delete(a.waiting, id)
		close(answer)
	}
}
