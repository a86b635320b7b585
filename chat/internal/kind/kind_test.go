package kind_test

import (
	"strings"
	"testing"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/errs"

	"github.com/msrchat/msrchat/chat/internal/kind"
)

// Every kind of chat.proto has a row, with a limit on its length.
func TestEveryKindOfContentHasARow(t *testing.T) {
	fields := (&chatv1.Content{}).ProtoReflect().Descriptor().Oneofs().ByName("kind").Fields()
	for i := range fields.Len() {
		k, err := kind.Of(uint32(fields.Get(i).Number()))
		if err != nil || k.Name != string(fields.Get(i).Name()) || k.Check == nil {
			t.Errorf("%s: %+v, %v", fields.Get(i).Name(), k, err)
			continue
		}
		if err := k.Check(make([]byte, 1<<20)); err == nil {
			t.Errorf("%s takes any length", k.Name)
		}
	}
}

func TestATextIsChecked(t *testing.T) {
	for _, number := range []uint32{0, kind.Text} { // a client of revision 0 names no kind
		k, err := kind.Of(number)
		if err != nil || k.Number != kind.Text || k.Uncounted {
			t.Fatalf("%d: %+v, %v", number, k, err)
		}
		if err := k.Check([]byte("hello 你好 👋")); err != nil {
			t.Error(err)
		}
		for body, want := range map[string]errs.Code{
			"": errs.CodeInvalid, " \n": errs.CodeInvalid, "\xff\xfe": errs.CodeInvalid, "\x1b[2J": errs.CodeInvalid,
			strings.Repeat("x", 1<<16): errs.CodeTooLarge,
		} {
			if err := k.Check([]byte(body)); errs.CodeOf(err) != want {
				t.Errorf("%.20q: %v, want %s", body, err, want)
			}
		}
	}
}

func TestAnUnknownKindIsRefused(t *testing.T) {
	for _, number := range []uint32{200, 257, 1 << 31} { // 257 is 1 in a byte
		if _, err := kind.Of(number); errs.CodeOf(err) != errs.CodeInvalid {
			t.Errorf("%d: %v", number, err)
		}
	}
}
