package content_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/content"
)

func TestATextIsItsOwnBody(t *testing.T) {
	c := &chatv1.Content{Kind: &chatv1.Content_Text{Text: "hello 你好 👋"}}
	kind, body, err := content.Split(c)
	if err != nil || kind != content.Text || string(body) != "hello 你好 👋" {
		t.Fatalf("kind %d, body %q, %v", kind, body, err)
	}
	back, err := content.Join(kind, body)
	if err != nil || !proto.Equal(back, c) {
		t.Errorf("came back as %v, %v", back, err)
	}
}

func TestAnUnknownKindHasNoContentAndIsNoError(t *testing.T) {
	c, err := content.Join(200, []byte{1, 2, 3})
	if err != nil || c.GetKind() != nil {
		t.Errorf("%v, %v", c, err)
	}
}

func TestWhatFitsNoKindIsRefused(t *testing.T) {
	if _, _, err := content.Split(&chatv1.Content{}); err == nil {
		t.Error("an empty content was split")
	}
	if _, err := content.Join(content.Text, []byte{0xff, 0xfe}); err == nil {
		t.Error("a text that is not UTF-8 was taken")
	}
	for _, kind := range []uint32{0, content.MaxKind + 1, 1 << 31} {
		if _, err := content.Join(kind, nil); err == nil {
			t.Errorf("kind %d was taken", kind)
		}
	}
}

// What came in can be stored and passed on as it came.
func FuzzJoin(f *testing.F) {
	f.Add(uint32(1), []byte("hello"))
	f.Add(uint32(7), []byte{0xff})
	f.Fuzz(func(t *testing.T, kind uint32, body []byte) {
		c, err := content.Join(kind, body)
		if err != nil || c.GetKind() == nil {
			return
		}
		again, bytes, err := content.Split(c)
		if err != nil || again != kind || string(bytes) != string(body) {
			t.Errorf("kind %d body %q came back as %d %q, %v", kind, body, again, bytes, err)
		}
	})
}
