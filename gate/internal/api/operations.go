package api

import (
	"context"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"github.com/msrchat/msrchat/gate/internal/account"
	"github.com/msrchat/msrchat/gate/internal/problem"
	"github.com/msrchat/msrchat/gate/internal/request"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/session"
)

var problemType = reflect.TypeFor[problem.Problem]()

// withToken marks an operation that needs a token.
func withToken(op huma.Operation) huma.Operation {
	op.Security = []map[string][]string{{"token": {}}}
	return op
}

func (a *API) register() {
	open(a, a.operation(http.MethodPost, "/v1/codes", "send-code", http.StatusAccepted,
		"Mail a verification code",
		"Six digits, valid for some minutes, for one use and a few tries; a new code replaces the old one. "+
			"The answer is the same whether or not the address has an account. If it has, the mail says so and has "+
			"no code.",
		http.StatusTooManyRequests), sendCode)

	open(a, a.operation(http.MethodPost, "/v1/accounts", "register", http.StatusCreated,
		"Register and log in",
		"Creates an account for the address that the code was mailed to. A name or an address that is taken is a "+
			"conflict, and `errors` names it; the code then stays valid.",
		http.StatusConflict, http.StatusTooManyRequests), register)

	open(a, a.operation(http.MethodPost, "/v1/sessions", "log-in", http.StatusCreated,
		"Log in", "By name or by address. A log-in ends the older session of the same device.",
		http.StatusUnauthorized, http.StatusTooManyRequests), logIn)

	logOut := a.operation(http.MethodDelete, "/v1/sessions/current", "log-out", http.StatusNoContent,
		"Log out", "Ends the session of the token. Its open chat connections end within a heartbeat.",
		http.StatusUnauthorized)
	huma.Register(a.huma, withToken(logOut), a.logOut)

	open(a, withToken(a.operation(http.MethodGet, "/v1/me", "me", http.StatusOK,
		"Who am I", "The account and the session of the token.",
		http.StatusUnauthorized)), me)

	open(a, withToken(a.operation(http.MethodPost, "/v1/assignments", "assign", http.StatusOK,
		"Get a chat server",
		"The chat server to connect to, chosen by load. 503 with a retry time if all are full, 502 if none can be "+
			"assigned.",
		http.StatusUnauthorized)), assign)
}

func sendCode(ctx context.Context, b *Backend, req *in[codesRequest]) (empty, error) {
	// The schema has only one purpose so far: to register.
	return empty{}, b.Accounts.SendCode(ctx, request.From(ctx).Client, req.Body.Email)
}

func register(ctx context.Context, b *Backend, req *entry[accountsRequest]) (LoginReply, error) {
	r := req.Body
	done, err := b.Accounts.Register(ctx, request.From(ctx).Client, account.Registration{
		Email: r.Email, Name: r.Name, Password: r.Password, Code: r.Code, Device: r.Device,
	})
	if err != nil {
		return LoginReply{}, err
	}
	return answer(ctx, b, done, req.Later), nil
}

func logIn(ctx context.Context, b *Backend, req *entry[sessionsRequest]) (LoginReply, error) {
	r := req.Body
	done, err := b.Accounts.LogIn(ctx, request.From(ctx).Client, account.Credentials{
		Name: r.Name, Email: r.Email, Password: r.Password, Device: r.Device,
	})
	if err != nil {
		return LoginReply{}, err
	}
	return answer(ctx, b, done, req.Later), nil
}

// answer includes an assignment, unless the client connects later, which saves
// it a request. If there is none, the log-in succeeds all the same; the
// assigner's metrics count the failure.
func answer(ctx context.Context, b *Backend, done account.LoggedIn, later bool) LoginReply {
	if later {
		return loginReply(done, nil)
	}
	where, err := b.Assigner.Assign(ctx, done.Account.ID, nil)
	if err != nil {
		where = nil
	}
	return loginReply(done, where)
}

// logOut answers without a body, which open cannot do.
func (a *API) logOut(ctx context.Context, req *Bearer) (*struct{}, error) {
	b, err := a.ready()
	var current session.Session
	if err == nil {
		current, err = authenticate(ctx, b, *req)
	}
	if err == nil {
		err = b.Accounts.LogOut(ctx, current.ID)
	}
	if err != nil {
		return nil, problem.From(ctx, err)
	}
	return nil, nil
}

func me(ctx context.Context, b *Backend, req *Bearer) (MeReply, error) {
	current, err := authenticate(ctx, b, *req)
	if err != nil {
		return MeReply{}, err
	}
	who, err := b.Accounts.Me(ctx, current)
	if err != nil {
		return MeReply{}, err
	}
	return MeReply{
		User:    Profile{ID: id(who.ID), Name: who.Name, Email: who.Email},
		Session: CurrentSession{ID: id(current.ID), Device: current.Device, ExpiresAtMS: current.ExpiresAt.UnixMilli()},
	}, nil
}

type assignRequest struct {
	Bearer // exported, because huma ignores unexported embedded types
	Body   assignmentsRequest
}

// maxInstance is longer than any instance id: those of Nomad have 36 bytes.
const maxInstance = 128

func assign(ctx context.Context, b *Backend, req *assignRequest) (*Assignment, error) {
	current, err := authenticate(ctx, b, req.Bearer)
	if err != nil {
		return nil, err
	}
	for _, instance := range req.Body.Avoid {
		if len(instance) > maxInstance {
			return nil, errs.New(errs.CodeInvalid, "an instance in avoid is longer than %d bytes", maxInstance).
				In("avoid")
		}
	}
	where, err := b.Assigner.Assign(ctx, current.UserID, req.Body.Avoid)
	if err != nil {
		return nil, err
	}
	return assignment(where), nil
}
