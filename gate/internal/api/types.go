package api

import (
	"strconv"

	"github.com/msrchat/msrchat/gate/internal/account"
	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	statusv1 "github.com/msrchat/msrchat/proto/msrchat/status/v1"
	"github.com/msrchat/msrchat/shared/session"
)

// The bodies of the API. What is checked beyond types and presence (lengths,
// characters, codes) is checked by the operations, whose texts say what is
// wrong; the descriptions here tell the same beforehand. Ids are strings: they
// have 64 bits, which not every JSON reader keeps. Requests may have no other
// members; answers may come to have more.

type codesRequest struct {
	Email   string `json:"email" doc:"The address to prove, without a name; at most 254 bytes" example:"ann@example.org"`
	Purpose string `json:"purpose" enum:"register" doc:"What the code is for"`
}

type accountsRequest struct {
	Email    string `json:"email" doc:"The address the code was sent to" example:"ann@example.org"`
	Name     string `json:"name" doc:"2 to 32 letters, digits and, after the first, . _ -; unique without regard to case" example:"ann"`
	Password string `json:"password" doc:"At least 8 characters, at most 256 bytes" example:"correct horse battery"`
	Code     string `json:"code" doc:"The six digits from the mail" example:"493817"`
	Device   string `json:"device" doc:"What to call the place that logs in, at most 128 characters; a later log-in on the same device ends this one" example:"laptop"`
}

type sessionsRequest struct {
	Name     string `json:"name,omitempty" doc:"The account's name; this or email" example:"ann"`
	Email    string `json:"email,omitempty" doc:"The account's address; this or name" example:"ann@example.org"`
	Password string `json:"password" example:"correct horse battery"`
	Device   string `json:"device" doc:"What to call the place that logs in, at most 128 characters; a later log-in on the same device ends this one" example:"laptop"`
}

type assignmentsRequest struct {
	Avoid []string `json:"avoid,omitempty" maxItems:"16" doc:"Instances that just failed; they are assigned only when nothing else is left" example:"[\"chat-7f3a\"]"`
}

type empty struct{}

// LoginReply is the answer to a registration and to a log-in.
type LoginReply struct {
	_ struct{} `additionalProperties:"true"`

	Token       string      `json:"token" doc:"Base64url of 32 bytes: the bearer token here, and the bytes in Hello to a chat server" example:"4fV0v2m3mLxgk2q1mQ3J9uN0aXcYk8d5wq7bJw1Zc2E"`
	User        User        `json:"user"`
	ExpiresAtMS int64       `json:"expires_at_ms" doc:"When the token ends, in Unix milliseconds" example:"1800000000000"`
	Assignment  *Assignment `json:"assignment" doc:"Where to connect to; null when nobody can tell at present, or it was not asked for: POST /v1/assignments gets one"`
}

// User is a person as others see them.
type User struct {
	_ struct{} `additionalProperties:"true"`

	ID   string `json:"id" example:"17"`
	Name string `json:"name" example:"ann"`
}

// Assignment sends a user to a chat server.
type Assignment struct {
	_ struct{} `additionalProperties:"true"`

	ID          string     `json:"id" doc:"To be repeated in Hello"`
	Server      Endpoint   `json:"server"`
	ExpiresAtMS int64      `json:"expires_at_ms" doc:"The place is kept until then, in Unix milliseconds" example:"1800000000000"`
	Alternates  []Endpoint `json:"alternates" nullable:"false" doc:"The next best servers, best first"`
}

// Endpoint is a chat server's listener.
type Endpoint struct {
	_ struct{} `additionalProperties:"true"`

	Instance      string `json:"instance" doc:"Name it in avoid when it fails" example:"chat-7f3a"`
	Address       string `json:"address" doc:"host:port" example:"127.0.0.1:7801"`
	TLSServerName string `json:"tls_server_name" doc:"The name to verify the certificate against; empty means no TLS" example:"chat.example.org"`
}

// MeReply is who and where one is logged in.
type MeReply struct {
	_ struct{} `additionalProperties:"true"`

	User    Profile        `json:"user"`
	Session CurrentSession `json:"session"`
}

// Profile is a person as they see themselves.
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
