package errs

import (
	"net/http"

	"google.golang.org/grpc/codes"
)

// row says how a code looks on each protocol, and what it means to a caller. No
// status occurs twice, so that the way back gives the same code.
type row struct {
	code Code
	http int
	grpc codes.Code
	// client: the request's fault, not ours; log it at debug level.
	client bool
	// mayPass: the same request may succeed later.
	mayPass bool
}

var table = []row{
	{CodeInvalid, http.StatusUnprocessableEntity, codes.InvalidArgument, true, false},
	{CodeUnauthenticated, http.StatusUnauthorized, codes.Unauthenticated, true, false},
	{CodeForbidden, http.StatusForbidden, codes.PermissionDenied, true, false},
	{CodeNotFound, http.StatusNotFound, codes.NotFound, true, false},
	{CodeConflict, http.StatusConflict, codes.AlreadyExists, true, false},
	{CodeTooLarge, http.StatusRequestEntityTooLarge, codes.OutOfRange, true, false},
	{CodeRateLimited, http.StatusTooManyRequests, codes.Aborted, true, true},
	{CodeExhausted, http.StatusServiceUnavailable, codes.ResourceExhausted, false, true},
	{CodeUnavailable, http.StatusBadGateway, codes.Unavailable, false, true},
	{CodeInternal, http.StatusInternalServerError, codes.Internal, false, true},
}

func find(match func(row) bool) row {
	for _, r := range table {
		if match(r) {
			return r
		}
	}
	return table[len(table)-1]
}

// HTTPStatus is the status that a code is answered with.
func (c Code) HTTPStatus() int { return find(func(r row) bool { return r.code == c }).http }

// GRPC is the status code that a code is answered with.
func (c Code) GRPC() codes.Code { return find(func(r row) bool { return r.code == c }).grpc }

// ClientFault says that the request was wrong, not the service.
func (c Code) ClientFault() bool { return find(func(r row) bool { return r.code == c }).client }

// MayPass says that the same request, unchanged, may succeed later. A code that
// a newer peer invented counts as CodeInternal and may pass: giving up on a
// message that could still be sent is worse than one more try.
func (c Code) MayPass() bool { return find(func(r row) bool { return r.code == c }).mayPass }

// FromHTTPStatus is the way back for a client that got no code in the body.
func FromHTTPStatus(status int) Code {
	return find(func(r row) bool { return r.http == status }).code
}

// Known returns c, or CodeInternal if c is not one of the codes. It is for a code
// that was read from a peer of another version.
func Known(c Code) Code { return find(func(r row) bool { return r.code == c }).code }
