package wire_test

import (
	"strings"
	"testing"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/wire"
)

func TestEveryGoodbyeHasItsMeaning(t *testing.T) {
	texts := map[string]chatv1.GoodbyeCode{}
	for number := range chatv1.GoodbyeCode_name {
		code := chatv1.GoodbyeCode(number)
		e := &wire.GoodbyeError{Goodbye: &chatv1.Goodbye{Code: code, Text: "as said", Reconnect: true}}
		if !strings.HasSuffix(e.Error(), " (as said)") || strings.ToLower(e.Name()) != e.Name() {
			t.Errorf("%v: %q, %q", code, e.Error(), e.Name())
		}
		if other, twice := texts[e.Text()]; twice {
			t.Errorf("%v and %v have the same text, or one has no row", code, other)
		}
		texts[e.Text()] = code
		loggedOut := code == chatv1.GoodbyeCode_GOODBYE_CODE_UNAUTHENTICATED
		if e.Reconnect() == loggedOut || e.LoggedOut() != loggedOut {
			t.Errorf("%v: reconnect %v, logged out %v", code, e.Reconnect(), e.LoggedOut())
		}
		// What the client did itself says nothing against the server.
		ours := loggedOut || code == chatv1.GoodbyeCode_GOODBYE_CODE_SLOW ||
			code == chatv1.GoodbyeCode_GOODBYE_CODE_SILENT
		if e.Avoid() == ours {
			t.Errorf("%v: avoid %v", code, e.Avoid())
		}
		e.Goodbye.Reconnect = false
		if e.Reconnect() {
			t.Errorf("%v: reconnects although the server says no", code)
		}
	}
	newer := &wire.GoodbyeError{Goodbye: &chatv1.Goodbye{Code: 77, Reconnect: true}}
	if !newer.Reconnect() || !newer.Avoid() || newer.Error() == "" || newer.Name() != "77" {
		t.Errorf("a code of a newer server: %v, %q", newer, newer.Name())
	}
}
