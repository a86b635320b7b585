// Package problem turns errors into RFC 9457 problems, the body of every
// failure that gate answers. A problem never repeats a value of the request,
// which may be a password or a code.
package problem

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"regexp"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/msrchat/msrchat/gate/internal/request"
	"github.com/msrchat/msrchat/shared/errs"
)

// ContentType is the media type of a problem.
const ContentType = "application/problem+json"

// Problem is the body of every answer that is not a success.
//
//nolint:errname // RFC 9457's name, and the schema's
type Problem struct {
	_ struct{} `additionalProperties:"true"`

	Title        string   `json:"title" doc:"The status in words" example:"Unprocessable Entity"`
	Status       int      `json:"status" doc:"The HTTP status" example:"422"`
	Detail       string   `json:"detail" doc:"What went wrong and what to do, for a person" example:"the name is shorter than 2 characters"`
	Instance     string   `json:"instance,omitempty" doc:"Identifies this failure in the operator's log" example:"urn:msrchat:request:4f1c9a5be0d27a63"`
	Code         string   `json:"code" doc:"The kind of failure, for programs" enum:"invalid,unauthenticated,forbidden,not_found,conflict,too_large,rate_limited,exhausted,unavailable,internal"`
	RetryAfterMS int64    `json:"retry_after_ms,omitempty" doc:"Wait this many milliseconds before trying again" example:"30000"`
	Errors       []Detail `json:"errors,omitempty" doc:"The members that are wrong"`
}

// Detail is one wrong member of a request.
type Detail struct {
	_ struct{} `additionalProperties:"true"`

	Location string `json:"location" doc:"Where, as a path" example:"body.name"`
	Message  string `json:"message" doc:"What is wrong there" example:"the name is shorter than 2 characters"`
}

// Error makes a Problem an error that huma answers with.
func (p *Problem) Error() string { return p.Detail }

// GetStatus implements huma.StatusError.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType implements huma.ContentTypeFilter.
func (p *Problem) ContentType(string) string { return ContentType }

// GetHeaders implements huma.HeadersError.
func (p *Problem) GetHeaders() http.Header {
	h := http.Header{}
	if p.RetryAfterMS > 0 {
		h.Set("Retry-After", strconv.FormatInt((p.RetryAfterMS+999)/1000, 10)) // rounded up to seconds
	}
	if p.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", "Bearer")
	}
	return h
}

// New returns a problem for a request that is wrong in a way for which HTTP has a
// status.
func New(ctx context.Context, status int, detail string) *Problem {
	code := errs.CodeInvalid
	switch {
	case status >= 500:
		code = errs.CodeInternal
	case status == http.StatusNotFound:
		code = errs.CodeNotFound
	case status == http.StatusRequestEntityTooLarge:
		code = errs.CodeTooLarge
	}
	request.Failed(ctx, errs.New(code, "%s", detail))
	return fill(ctx, &Problem{Status: status, Detail: detail, Code: string(code)})
}

// From returns the problem for err and records err for the log.
func From(ctx context.Context, err error) *Problem {
	var already *Problem
	if errors.As(err, &already) {
		return already
	}
	var domain *errs.Error
	if !errors.As(err, &domain) && (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)) {
		err = errs.Wrap(errs.CodeUnavailable, err, "this took too long; try again").Retry(time.Second)
	}
	request.Failed(ctx, err)
	e := errs.From(err)
	p := &Problem{
		Status: e.Code.HTTPStatus(), Detail: e.Message, Code: string(e.Code),
		RetryAfterMS: e.RetryAfter.Milliseconds(),
	}
	if e.Field != "" {
		p.Errors = []Detail{{Location: "body." + e.Field, Message: e.Message}}
	}
	return fill(ctx, p)
}

func fill(ctx context.Context, p *Problem) *Problem {
	p.Title = http.StatusText(p.Status)
	if id := request.From(ctx).ID; id != "" {
		p.Instance = "urn:msrchat:request:" + id
	}
	return p
}

// Write answers with p.
func Write(w http.ResponseWriter, p *Problem) {
	body, err := json.Marshal(p)
	if err != nil { // cannot happen with strings and numbers
		body = nil
	}
	for name, values := range p.GetHeaders() {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Type", ContentType)
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(body, '\n')) // on an error the client is gone
}

// Transform replaces huma's error body, which repeats the rejected value, by a
// Problem. It is a huma.Transformer.
func Transform(ctx huma.Context, _ string, body any) (any, error) {
	model, ok := body.(*huma.ErrorModel)
	if !ok {
		return body, nil
	}
	p := New(ctx.Context(), model.Status, detail(model))
	for _, e := range model.Errors {
		if e != nil {
			p.Errors = append(p.Errors, Detail{Location: location(e.Location), Message: message(e.Message)})
		}
	}
	return p, nil
}

// detail replaces huma's summary by this API's text.
func detail(model *huma.ErrorModel) string {
	switch {
	case model.Status == http.StatusUnsupportedMediaType:
		return "the body must be JSON: send Content-Type: application/json"
	case model.Status >= 500:
		return "internal error"
	case model.Status == http.StatusBadRequest && len(model.Errors) > 0:
		return "the body is not valid JSON"
	case len(model.Errors) > 0:
		return "the request does not fit the API's schema"
	}
	return message(model.Detail)
}

// safeLocation matches the locations of known members. The name of an unknown
// one is the sender's text and could be anything.
var safeLocation = regexp.MustCompile(`^(body|path|query|header)(\.[a-z][a-z0-9_-]{0,31}|\[[0-9]{1,5}\]){0,4}$`)

func location(s string) string {
	if safeLocation.MatchString(s) {
		return s
	}
	return "body"
}

// safeMessage matches huma's fixed messages, and not those that quote a parser.
var safeMessage = regexp.MustCompile(`^(expected [a-z][A-Za-z0-9 "<>=_|^$,.-]{1,120}|unexpected property|` +
	`required [a-z]+ parameter is missing|request body is required|request body read timeout|` +
	`not valid JSON at byte [0-9]{1,6}|wrong type)$`)

func message(s string) string {
	if safeMessage.MatchString(s) {
		return s
	}
	return "not acceptable"
}
