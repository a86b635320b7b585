// Package request is what is known about the HTTP request being served beyond
// net/http: its id, its real client, and how it failed.
package request

import (
	"context"
	"net/netip"

	"github.com/msrchat/msrchat/shared/errs"
)

// Info belongs to the goroutine that serves the request.
type Info struct {
	// ID is in the log line, the answer's header and a problem's instance.
	ID string
	// Client is the address of the client, also behind a proxy; see
	// web.ClientFinder.
	Client netip.Addr
	// Code is the kind of failure that was answered, empty for a success.
	Code errs.Code
	// Err is the error behind it; its text is for the log.
	Err error
}

// key is the context key of *Info.
type key struct{}

// With returns a context that carries info.
func With(ctx context.Context, info *Info) context.Context {
	return context.WithValue(ctx, key{}, info)
}

// From returns the request's Info, and outside of a request an empty one.
func From(ctx context.Context) *Info {
	if info, ok := ctx.Value(key{}).(*Info); ok {
		return info
	}
	return &Info{}
}

// Failed records how the request failed. The first error stays, because later
// ones are its consequences.
func Failed(ctx context.Context, err error) {
	info := From(ctx)
	if info.Code == "" {
		info.Code, info.Err = errs.CodeOf(err), err
	}
}
