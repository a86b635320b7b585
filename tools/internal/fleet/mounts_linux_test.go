package fleet

import "testing"

func TestUnescape(t *testing.T) {
	if got, want := unescape(`/a\040b\134c\011d`), "/a b\\c\td"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
