package mailbox

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestStoreForgetsTheOldest(t *testing.T) {
	s := newStore(3)
	for i := range 5 {
		s.add(Message{To: []string{"a@b"}, Subject: fmt.Sprint(i)})
	}
	var got []string
	for _, m := range s.find("", 10) {
		got = append(got, fmt.Sprintf("%s#%d", m.Subject, m.ID))
	}
	if want := "4#5 3#4 2#3"; strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

// Whatever comes over the wire, decode returns, and what it returns is text.
func FuzzDecode(f *testing.F) {
	f.Add([]byte("Subject: s\r\n\r\ntext"))
	f.Add([]byte("Content-Type: multipart/mixed; boundary=b\r\n\r\n" +
		"--b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b--"))
	f.Add([]byte("Content-Transfer-Encoding: base64\r\n\r\n\xff\xfe"))
	f.Add([]byte(strings.Repeat("Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n", 20)))
	f.Fuzz(func(t *testing.T, raw []byte) {
		subject, text := decode(raw)
		if !utf8.ValidString(subject) || !utf8.ValidString(text) {
			t.Errorf("not UTF-8: %q / %q", subject, text)
		}
	})
}
