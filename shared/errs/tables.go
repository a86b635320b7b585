package errs

import (
	"net/http"

	"google.golang.org/grpc/codes"
)

// row says how a code looks on each protocol. Each column is free of doubles,
// so that the way back gives the same code.
type row struct {
	code   Code
	http   int
	grpc   codes.Code
	client bool // the request's fault, not ours: log it at debug level
}

var table = []row{
	{CodeInvalid, http.StatusUnprocessableEntity, codes.InvalidArgument, true},
	{CodeUnauthenticated, http.StatusUnauthorized, codes.Unauthenticated, true},
	{CodeForbidden, http.StatusForbidden, codes.PermissionDenied, true},
	{CodeNotFound, http.StatusNotFound, codes.NotFound, true},
	{CodeConflict, http.StatusConflict, codes.AlreadyExists, true},
	{CodeTooLarge, http.StatusRequestEntityTooLarge, codes.OutOfRange, true},
	{CodeRateLimited, http.StatusTooManyRequests, codes.Aborted, true},
	{CodeExhausted, http.StatusServiceUnavailable, codes.ResourceExhausted, false},
	{CodeUnavailable, http.StatusBadGateway, codes.Unavailable, false},
	{CodeInternal, http.StatusInternalServerError, codes.Internal, false},
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

// FromHTTPStatus is the way back for a client that got no code in the body.
func FromHTTPStatus(status int) Code {
	return find(func(r row) bool { return r.http == status }).code
}

// Known returns c, or CodeInternal where c is not one of the codes: for a code
// that was read from a peer of another version.
func Known(c Code) Code { return find(func(r row) bool { return r.code == c }).code }
