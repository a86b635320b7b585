package api

import (
	"strconv"

	"github.com/msrchat/msrchat/gate/internal/account"
	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	statusv1 "github.com/msrchat/msrchat/proto/msrchat/status/v1"
	"github.com/msrchat/msrchat/shared/session"
)

// The bodies of the API. huma checks types and presence. Lengths, characters and
// codes are checked by the operations, whose texts say what is wrong; the
// descriptions here document the same. Ids are strings, because not every JSON
// reader keeps 64 bits. Requests may have no other members; answers may get more.

type codesRequest struct {
	Email   string `json:"email" doc:"The address to verify, without a name; at most 254 bytes" example:"ann@example.org"`
	Purpose string `json:"purpose" enum:"register" doc:"What the code is for"`
}

type accountsRequest struct {
	Email    string `json:"email" doc:"The address the code was sent to" example:"ann@example.org"`
	Name     string `json:"name" doc:"2 to 32 letters, digits and, after the first, . _ -; unique regardless of case" example:"ann"`
	Password string `json:"password" doc:"At least 8 characters, at most 256 bytes" example:"correct horse battery"`
	Code     string `json:"code" doc:"The six digits from the mail" example:"493817"`
	Device   string `json:"device" doc:"A name for this device, at most 128 characters; a later log-in with the same device ends this session" example:"laptop"`
}

type sessionsRequest struct {
	Name     string `json:"name,omitempty" doc:"The account's name; this or email" example:"ann"`
	Email    string `json:"email,omitempty" doc:"The account's address; this or name" example:"ann@example.org"`
	Password string `json:"password" example:"correct horse battery"`
	Device   string `json:"device" doc:"A name for this device, at most 128 characters; a later log-in with the same device ends this session" example:"laptop"`
}

type assignmentsRequest struct {
	Avoid []string `json:"avoid,omitempty" maxItems:"16" doc:"Instances that just failed; they are assigned only if there is no other" example:"[\"chat-7f3a\"]"`
}

type empty struct{}

// LoginReply is the answer to a registration and to a log-in.
type LoginReply struct {
	_ struct{} `additionalProperties:"true"`

	Token       string      `json:"token" doc:"Base64url of 32 bytes: the bearer token of this API, and, decoded, the token in Hello to a chat server" example:"4fV0v2m3mLxgk2q1mQ3J9uN0aXcYk8d5wq7bJw1Zc2E"`
	User        User        `json:"user"`
	ExpiresAtMS int64       `json:"expires_at_ms" doc:"When the token expires, in Unix milliseconds" example:"1800000000000"`
	Assignment  *Assignment `json:"assignment" doc:"Where to connect to; null if none can be assigned at present, or with later=true: POST /v1/assignments gets one"`
}

// User is what others see of a person.
type User struct {
	_ struct{} `additionalProperties:"true"`

	ID   string `json:"id" example:"17"`
	Name string `json:"name" example:"ann"`
}

// Assignment sends a user to a chat server.
type Assignment struct {
	_ struct{} `additionalProperties:"true"`

	ID          string     `json:"id" doc:"To be sent in Hello"`
	Server      Endpoint   `json:"server"`
	ExpiresAtMS int64      `json:"expires_at_ms" doc:"The server expects the user until then, in Unix milliseconds" example:"1800000000000"`
	Alternates  []Endpoint `json:"alternates" nullable:"false" doc:"Other servers, in the order to try them"`
}

// Endpoint is a chat server's listener.
type Endpoint struct {
	_ struct{} `additionalProperties:"true"`

	Instance      string `json:"instance" doc:"Name it in avoid when it fails" example:"chat-7f3a"`
	Address       string `json:"address" doc:"host:port" example:"127.0.0.1:7801"`
	TLSServerName string `json:"tls_server_name" doc:"The name to verify the certificate against; empty means no TLS" example:"chat.example.org"`
}

// MeReply is the account and the session of a token.
type MeReply struct {
	_ struct{} `additionalProperties:"true"`

	User    Profile        `json:"user"`
	Session CurrentSession `json:"session"`
}

// Profile is what a person sees of their own account.
type Profile struct {
	_ struct{} `additionalProperties:"true"`

	ID    string `json:"id" example:"17"`
	Name  string `json:"name" example:"ann"`
	Email string `json:"email" example:"ann@example.org"`
}

// CurrentSession is the session whose token was sent.
type CurrentSession struct {
	_ struct{} `additionalProperties:"true"`

	ID          string `json:"id" example:"40"`
	Device      string `json:"device" example:"laptop"`
	ExpiresAtMS int64  `json:"expires_at_ms" example:"1800000000000"`
}

func id(n uint64) string { return strconv.FormatUint(n, 10) }

func loginReply(in account.LoggedIn, where *statusv1.Assignment) LoginReply {
	return LoginReply{
		Token:       session.EncodeToken(in.Token),
		User:        User{ID: id(in.Account.ID), Name: in.Account.Name},
		ExpiresAtMS: in.Session.ExpiresAt.UnixMilli(),
		Assignment:  assignment(where),
	}
}

func assignment(a *statusv1.Assignment) *Assignment {
	if a == nil {
		return nil
	}
	out := &Assignment{
		ID: a.GetId(), Server: endpoint(a.GetServer()), ExpiresAtMS: a.GetExpiresAtMs(),
		Alternates: make([]Endpoint, 0, len(a.GetAlternates())),
	}
	for _, e := range a.GetAlternates() {
		out.Alternates = append(out.Alternates, endpoint(e))
	}
	return out
}

func endpoint(e *chatv1.Endpoint) Endpoint {
	return Endpoint{Instance: e.GetInstance(), Address: e.GetAddress(), TLSServerName: e.GetTlsServerName()}
}
