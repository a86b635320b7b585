// Package api is gate's HTTP API: its operations, and the OpenAPI document that
// is generated from them.
package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/msrchat/msrchat/gate/internal/account"
	"github.com/msrchat/msrchat/gate/internal/problem"
	"github.com/msrchat/msrchat/gate/internal/web"
	statusv1 "github.com/msrchat/msrchat/proto/msrchat/status/v1"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/session"
)

// Version is that of the API: it changes when clients have to change.
const Version = "1.0.0"

// Assigner assigns a chat server to a user; see assign.Client.
type Assigner interface {
	Assign(ctx context.Context, userID uint64, avoid []string) (*statusv1.Assignment, error)
}

// Backend is what the operations need.
type Backend struct {
	Accounts *account.Service
	Assigner Assigner
}

// API is the operations on a router. It is safe for concurrent use.
type API struct {
	// backend returns nil until the service has its database.
	backend func() *Backend
	huma    huma.API
}

// New registers the operations on a mux. backend is called for each request;
// while it returns nil, operations are unavailable.
func New(mux humago.Mux, backend func() *Backend) *API {
	config := huma.DefaultConfig("msrChat gate", Version)
	config.Info.Description = "Accounts, sessions and the assignment of chat servers.\n\n" +
		"Every failure is answered with a problem (RFC 9457). Its `code` is the kind of failure, " +
		"its `retry_after_ms`, if present, says when to try again."
	config.Info.License = &huma.License{Name: "MIT", Identifier: "MIT"}
	config.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"token": {Type: "http", Scheme: "bearer", Description: "The token of a LoginReply."},
	}
	// This package serves the document. /docs would load scripts from
	// elsewhere, and the hooks would add a $schema member to every body.
	config.OpenAPIPath, config.DocsPath, config.SchemasPath, config.CreateHooks = "", "", "", nil
	format := huma.Format{Marshal: huma.DefaultJSONFormat.Marshal, Unmarshal: unmarshal}
	config.Formats = map[string]huma.Format{"application/json": format, "json": format}
	config.Transformers = []huma.Transformer{problem.Transform}

	a := &API{backend: backend, huma: humago.New(mux, config)}
	a.register()
	a.nullable("LoginReply", "assignment")
	for _, unused := range []string{"ErrorModel", "ErrorDetail"} { // see problem.Transform
		delete(a.huma.OpenAPI().Components.Schemas.Map(), unused)
	}
	return a
}

// nullable documents that a member may be null, for which huma has no tag if the
// member's type is a struct.
func (a *API) nullable(schema, member string) {
	properties := a.huma.OpenAPI().Components.Schemas.Map()[schema].Properties
	was := properties[member]
	properties[member] = &huma.Schema{
		Description: was.Description,
		OneOf:       []*huma.Schema{{Ref: was.Ref}, {Type: "null"}},
	}
}

// unmarshal is json.Unmarshal whose errors do not quote the document.
func unmarshal(data []byte, v any) error {
	err := json.Unmarshal(data, v)
	var syntax *json.SyntaxError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &syntax):
		return fmt.Errorf("not valid JSON at byte %d", syntax.Offset)
	}
	return errors.New("wrong type")
}

// OpenAPI returns the document as YAML and as JSON.
func (a *API) OpenAPI() (yaml, asJSON []byte, err error) {
	if yaml, err = a.huma.OpenAPI().YAML(); err != nil {
		return nil, nil, fmt.Errorf("openapi: %w", err)
	}
	if asJSON, err = json.MarshalIndent(a.huma.OpenAPI(), "", "  "); err != nil {
		return nil, nil, fmt.Errorf("openapi: %w", err)
	}
	return yaml, asJSON, nil
}

// operation describes an operation to huma, with what all operations share: the
// body is in memory already (web.Bodies), and failures are problems.
func (a *API) operation(
	method, path, operationID string, status int, summary, description string, failures ...int,
) huma.Operation {
	op := huma.Operation{
		OperationID: operationID, Method: method, Path: path, DefaultStatus: status,
		Summary: summary, Description: description,
		MaxBodyBytes:    web.MaxBody + 1, // huma refuses a body of exactly this length
		BodyReadTimeout: -1,              // web.Bodies had its own
		Responses:       map[string]*huma.Response{},
	}
	schema := a.huma.OpenAPI().Components.Schemas.Schema(problemType, true, "Problem")
	// Those of web.Bodies and web.Concurrency, which come before every operation, are in
	// it: a client that is made from the document knows them.
	always := []int{
		http.StatusBadRequest, http.StatusRequestTimeout, http.StatusRequestEntityTooLarge,
		http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity, http.StatusBadGateway,
		http.StatusServiceUnavailable,
	}
	for _, status := range append(failures, always...) {
		op.Responses[strconv.Itoa(status)] = &huma.Response{
			Description: http.StatusText(status),
			Content:     map[string]*huma.MediaType{problem.ContentType: {Schema: schema}},
		}
	}
	return op
}

// in and out are huma's envelopes around the bodies.
type in[B any] struct{ Body B }

// entry is the envelope of a request that begins a session.
type entry[B any] struct {
	Later bool `query:"later" doc:"true leaves the assignment out, for a client that does not connect now"`
	Body  B
}

type out[B any] struct{ Body B }

// open registers an operation that anybody may call.
func open[I, O any](a *API, op huma.Operation, run func(context.Context, *Backend, *I) (O, error)) {
	huma.Register(a.huma, op, func(ctx context.Context, req *I) (*out[O], error) {
		b, err := a.ready()
		if err == nil {
			var body O
			if body, err = run(ctx, b, req); err == nil {
				return &out[O]{body}, nil
			}
		}
		return nil, problem.From(ctx, err)
	})
}

// Bearer is the token in a request.
type Bearer struct {
	Authorization string `header:"Authorization" hidden:"true"`
}

func (b Bearer) token() ([]byte, error) {
	scheme, value, _ := strings.Cut(b.Authorization, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return nil, errs.New(errs.CodeUnauthenticated, "this needs a session: send Authorization: Bearer TOKEN")
	}
	return session.ParseToken(strings.TrimSpace(value))
}

// authenticate returns the session of a request.
func authenticate(ctx context.Context, b *Backend, who Bearer) (session.Session, error) {
	token, err := who.token()
	if err != nil {
		return session.Session{}, err
	}
	return b.Accounts.Verify(ctx, token)
}

func (a *API) ready() (*Backend, error) {
	if b := a.backend(); b != nil {
		return b, nil
	}
	return nil, errs.New(errs.CodeUnavailable, "the service is starting; try again in a moment").Retry(time.Second)
}
