package fuzz

import (
	"bytes"
	"encoding/base64"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/dynamicpb"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	relayv1 "github.com/msrchat/msrchat/proto/msrchat/relay/v1"
)

func TestWhatPeopleSeeIsJudged(t *testing.T) {
	for _, c := range []struct {
		judge func(string) error
		name  string
		good  []string
		bad   []string
	}{
		{
			shownName, "name",
			[]string{"ann", "王小明", "Nguyễn", "नीतीश", "Zoë", "e\u0301lan"},
			[]string{
				"", "ann\ufe0f", "ann\u3164", "a\u034fnn", "a nn", "a\u2800", "a\x1b", "\xff", "a\u202eb", "z" +
					strings.Repeat("\u0336", 5), "a\u17b4", "a\u2028b", "a\u00adb",
			},
		},
		{
			shownLine, "line",
			[]string{"", "the name is shorter than 2 characters", "電話 2"},
			[]string{"a\nb", "a\x7f", "a\u200bb", "a\u009bb", "a\u2066b", "a\ufff9b", "\xc0\xaf", "a\U000e0041"},
		},
		{
			shownDraft, "draft",
			[]string{"", " \n\t", "\u200b", "🏴󠁧󠁢󠁷󠁬󠁳󠁿 and 🏴", "می\u200cخواهم", "שלום\u200f"},
			[]string{
				"\x1b[2J", "\u202e", "a\U000e0041", "🏴\U000e0067\U000e0062", "\r", "\u009b", "\ufffb",
				strings.Repeat("\u200b", 5), "🏴" + strings.Repeat("\U000e0068", 7) + "\U000e007f",
			},
		},
		{
			shownText, "text",
			[]string{"hi", "👨‍👩‍👧 ❤️", "⠓", "\u0903", "\U00013787"},
			[]string{"", " \n", "\u200b", "\u2800", "\u3164", "\u0301", "\ufe0f\u3000", "hi\x00"},
		},
	} {
		for _, s := range c.good {
			if err := c.judge(s); err != nil {
				t.Errorf("%s %q: %v", c.name, s, err)
			}
		}
		for _, s := range c.bad {
			if c.judge(s) == nil {
				t.Errorf("%s %q passes", c.name, s)
			}
		}
	}
}

// The seed alone decides the values.
func TestTheSameSeedMakesTheSame(t *testing.T) {
	w := &world{
		people:        []*person{{name: "a", id: 1}, {name: "b", id: 2}},
		conversations: map[[2]int]uint64{{0, 1}: 7}, members: map[uint64][2]int{7: {0, 1}},
	}
	make := func(seed uint64) (out [][]byte) {
		v := newValues(seed, 1, 1)
		f := &filler{values: v, world: w, hostile: 0.3}
		for range 200 {
			out = append(out, f.request(anyRequest(v), 1), []byte(v.text()), []byte(v.quote(v.text())),
				[]byte(v.odd("/x")))
		}
		return out
	}
	a, b, c := make(1), make(1), make(2)
	for i := range a {
		// Times of day are in some of the frames.
		if i%4 != 0 && !bytes.Equal(a[i], b[i]) || len(a[i]) != len(b[i]) {
			t.Fatalf("value %d: %q, then %q", i, a[i], b[i])
		}
	}
	if slices.EqualFunc(a, c, bytes.Equal) {
		t.Error("another seed makes the same")
	}
}

// Every request of chat.proto is made, with every field at some time, also odd ones.
func TestEveryFieldIsFilled(t *testing.T) {
	token := base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte("t"), 32))
	w := &world{
		people:        []*person{{name: "a", id: 1, token: token}},
		conversations: map[[2]int]uint64{{0, 0}: 7}, members: map[uint64][2]int{7: {0, 0}},
	}
	v := newValues(1, 1, 1)
	f := &filler{values: v, world: w, hostile: 0.3}
	undecodable := 0
	for i := range bodies.Fields().Len() {
		field := bodies.Fields().Get(i)
		set := make(map[string]bool)
		for range 200 {
			m := &chatv1.ClientFrame{}
			if proto.Unmarshal(f.request(field, 1)[4:], m) != nil {
				undecodable++
				continue
			}
			if body := m.ProtoReflect().Get(field).Message(); named(m) == string(field.Name()) {
				for j := range body.Descriptor().Fields().Len() {
					if in := body.Descriptor().Fields().Get(j); body.Has(in) {
						set[string(in.Name())] = true
					}
				}
			}
		}
		if want := field.Message().Fields().Len(); len(set) != want {
			t.Errorf("%s: only %v of %d fields were set", field.Name(), set, want)
		}
	}
	if undecodable == 0 {
		t.Error("no text was not UTF-8")
	}
}

// A trace that was kept is done again with the secrets of another system.
func TestATraceIsKept(t *testing.T) {
	token := func(c string) string { return base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte(c), 32)) }
	was, is := token("a"), token("b")
	raw := bytes.Repeat([]byte("a"), 32)
	kept := &Trace{Kind: "http", Seed: 7, Secrets: map[string]string{was: "0"}, Steps: []Step{
		{At: "gate", Do: doExchange, Pieces: [][]byte{[]byte("Bearer " + was), append([]byte("\xff"), raw...)}},
	}}
	folder := filepath.Join(t.TempDir(), "finding")
	if err := kept.Save(folder, &Finding{Rule: ruleShown, Where: "x", What: "y"}); err != nil {
		t.Fatal(err)
	}
	read, err := Load(folder)
	if err != nil {
		t.Fatal(err)
	}
	var s secrets
	s.add(was, is)
	got := s.replace(read.Steps[0].Pieces)
	if string(got[0]) != "Bearer "+is || string(got[1]) != "\xff"+strings.Repeat("b", 32) {
		t.Errorf("got %q", got)
	}
	text, err := os.ReadFile(filepath.Join(folder, "trace.txt"))
	if err != nil || !strings.Contains(string(text), "shown: x: y") {
		t.Errorf("%s, %v", text, err)
	}
	if _, err := Load(t.TempDir()); err == nil {
		t.Error("an empty folder is a trace")
	}
}

// The bytes of an exchange are read as a server reads them.
func TestWhatWasSentIsRead(t *testing.T) {
	const get, post = "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody"
	for _, c := range []struct {
		sent  string
		whole int
		rest  string
	}{
		{"", 0, ""},
		{get, 1, ""},
		{get + post + get, 3, ""},
		{post + "}", 1, ""},
		{post + "more", 1, "more"},
		{post[:len(post)-1], 0, post[:len(post)-1]},
		{get + get[:9], 1, get[:9]},
		{"\x00\x01", 0, "\x00\x01"},
	} {
		whole, rest := sent([][]byte{[]byte(c.sent[:len(c.sent)/2]), []byte(c.sent[len(c.sent)/2:])})
		if len(whole) != c.whole || string(rest) != c.rest {
			t.Errorf("%q: %d requests, then %q; want %d, %q", c.sent, len(whole), rest, c.whole, c.rest)
		}
	}
}

// An answer that the document has not is found, one that it has is not.
func TestAnswersAreJudgedByTheDocument(t *testing.T) {
	text, err := os.ReadFile("../../gate/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	d, err := newDocument(text)
	if err != nil {
		t.Fatal(err)
	}
	me := d.find("GET", "/v1/me")
	if me == nil || d.find("HEAD", "/v1/me") != me || d.find("GET", "/v1/me/") != nil ||
		d.find("PUT", "/v1/me") != nil {
		t.Fatalf("found %v", me)
	}
	const good = `{"user":{"id":"1","name":"ann","email":"a@b.c"},"session":{"id":"1","device":"d","expires_at_ms":1}}`
	for _, c := range []struct {
		status      int
		media, body string
		right       bool
	}{
		{200, "application/json", good, true},
		{200, "application/json; charset=utf-8", good, true},
		{201, "application/json", good, false},
		{200, "text/plain", good, false},
		{200, "application/json", `{}`, false},
		{200, "application/json", good + "{}", false},
		{200, "application/json", "", false},
		{401, problemType, `{"title":"x","status":401,"detail":"x","code":"unauthenticated"}`, true},
		{401, problemType, `{"title":"x","status":401,"detail":"x","code":"odd"}`, false},
		{500, problemType, `{"title":"x","status":500,"detail":"x","code":"internal"}`, false},
	} {
		if err := me.judge(c.status, c.media, []byte(c.body), false); (err == nil) != c.right {
			t.Errorf("%d %s %s: %v", c.status, c.media, c.body, err)
		}
	}
}

// What a peer is believed is right in every message of it that can be read.
func TestAPeerNamesMembers(t *testing.T) {
	w := &world{
		people:        []*person{{name: "a", id: 11}, {name: "b", id: 12}, {name: "c", id: 13}},
		conversations: map[[2]int]uint64{{0, 1}: 7}, members: map[uint64][2]int{7: {0, 1}},
	}
	method := relayService.Methods().ByName("Append")
	f := &filler{values: newValues(1, 1, 1), world: w, hostile: 0.3}
	strange := 0
	for range 300 {
		m := dynamicpb.NewMessage(method.Input())
		f.fill(m, 0)
		f.peer(m, 1)
		body := f.believed(method.Input(), f.strange(f.marshal(m)), 1)
		r := &relayv1.AppendRequest{}
		if proto.Unmarshal(body, r) != nil {
			strange++
			continue
		}
		for _, e := range r.GetEntries() {
			if id := e.GetSenderId(); r.GetConversationId() == 7 && id != 0 && id != 11 && id != 12 {
				t.Fatalf("user %d sends", id)
			}
		}
	}
	if strange == 0 {
		t.Error("every message could be read")
	}
}
