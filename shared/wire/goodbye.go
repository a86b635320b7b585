package wire

import (
	"fmt"
	"strings"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
)

// GoodbyeError is the server's Goodbye: it ended the connection, or did not let
// the client in.
type GoodbyeError struct{ Goodbye *chatv1.Goodbye }

// meaning is what a code means to a client.
type meaning struct {
	// reconnect: connecting again may help, where Goodbye.reconnect says so too.
	reconnect bool
	// avoid: the reason lies with this server, so another one is preferred.
	avoid bool
	// text is for a person.
	text string
}

// meanings has a row for each code.
var meanings = map[chatv1.GoodbyeCode]meaning{
	chatv1.GoodbyeCode_GOODBYE_CODE_DRAINING:        {true, true, "the server is being replaced"},
	chatv1.GoodbyeCode_GOODBYE_CODE_FULL:            {true, true, "the server has no room"},
	chatv1.GoodbyeCode_GOODBYE_CODE_SLOW:            {true, false, "this program read too slowly"},
	chatv1.GoodbyeCode_GOODBYE_CODE_SILENT:          {true, false, "this program was silent for too long"},
	chatv1.GoodbyeCode_GOODBYE_CODE_PROTOCOL:        {true, true, "the server does not understand this program"},
	chatv1.GoodbyeCode_GOODBYE_CODE_VERSION:         {true, true, "this program does not fit the server; update it"},
	chatv1.GoodbyeCode_GOODBYE_CODE_UNAUTHENTICATED: {false, false, "the session has ended; log in again"},
	chatv1.GoodbyeCode_GOODBYE_CODE_UNAVAILABLE:     {true, true, "the server cannot serve at present"},
	chatv1.GoodbyeCode_GOODBYE_CODE_REBALANCE:       {true, true, "the server hands some of its users to others"},
}

// unknown is the row of a code that a newer server invented.
var unknown = meaning{true, true, "the server ended the connection"}

func (e *GoodbyeError) meaning() meaning {
	if m, ok := meanings[e.Goodbye.GetCode()]; ok {
		return m
	}
	return unknown
}

// Error is what the code means, and in brackets what the server said.
func (e *GoodbyeError) Error() string {
	if said := e.Goodbye.GetText(); said != "" {
		return fmt.Sprintf("%s (%s)", e.meaning().text, said)
	}
	return e.meaning().text
}

// Text is what the code means, for a person.
func (e *GoodbyeError) Text() string { return e.meaning().text }

// Name is the code as people write it: "draining".
func (e *GoodbyeError) Name() string {
	return strings.ToLower(strings.TrimPrefix(e.Goodbye.GetCode().String(), "GOODBYE_CODE_"))
}

// Reconnect says whether connecting again can help.
func (e *GoodbyeError) Reconnect() bool { return e.meaning().reconnect && e.Goodbye.GetReconnect() }

// Avoid says whether another server is to be preferred for a while.
func (e *GoodbyeError) Avoid() bool { return e.meaning().avoid }

// LoggedOut says that the session's token is no longer good.
func (e *GoodbyeError) LoggedOut() bool {
	return e.Goodbye.GetCode() == chatv1.GoodbyeCode_GOODBYE_CODE_UNAUTHENTICATED
}

// After is how long the server asks to wait before connecting again.
func (e *GoodbyeError) After() time.Duration {
	return time.Duration(e.Goodbye.GetReconnectAfterMs()) * time.Millisecond
}
