package errs

import (
	"errors"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// ToGRPC turns err into a gRPC status error that carries code, safe message and
// retry time. ToGRPC(nil) is nil.
func ToGRPC(err error) error {
	if err == nil {
		return nil
	}
	e := From(err)
	st := status.New(e.Code.GRPC(), e.Message)
	if e.RetryAfter > 0 {
		if with, err := st.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(e.RetryAfter)}); err == nil {
			st = with
		}
	}
	return st.Err()
}

// FromGRPC turns a gRPC error back. A status that is not a service's answer (a
// deadline, a lost connection) becomes CodeUnavailable: the outcome is unknown.
func FromGRPC(err error) error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return err
	}
	st, ok := status.FromError(err)
	if !ok {
		return Wrap(CodeUnavailable, err, "the service did not answer")
	}
	switch st.Code() {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Unknown:
		return Wrap(CodeUnavailable, err, "the service did not answer")
	}
	e = &Error{
		Code:    find(func(r row) bool { return r.grpc == st.Code() }).code,
		Message: st.Message(),
	}
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok {
			e.RetryAfter = info.GetRetryDelay().AsDuration()
		}
	}
	return e
}
