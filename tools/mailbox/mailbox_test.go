package mailbox_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/smtp"
	"strings"
	"testing"
	"time"

	"github.com/msrchat/msrchat/tools/mailbox"
)

func TestDeliveredMailIsShown(t *testing.T) {
	box := run(t)
	send(t, box, "gate@localhost", []string{"anna@example.org"},
		"Subject: =?utf-8?B?6aqM6K+B56CB?=\r\n\r\nYour code is 123456\r\n")
	send(t, box, "gate@localhost", []string{"ben@example.org", "anna@example.org"}, "Subject: second\r\n\r\nnewer\r\n")

	newest, ok := box.Newest("Anna@Example.org") // people type addresses as they like
	if !ok || newest.Subject != "second" || newest.Text != "newer" || newest.From != "gate@localhost" {
		t.Errorf("newest of anna: %+v, %v", newest, ok)
	}
	got := get(t, box, "to=anna%40example.org")
	if len(got) != 2 || got[0].Subject != "second" || got[1].Subject != "验证码" || got[1].Text != "Your code is 123456" {
		t.Errorf("messages of anna: %+v", got)
	}
	if got := get(t, box, "to=anna%40example.org&limit=1"); len(got) != 1 || got[0].Subject != "second" {
		t.Errorf("limited to one: %+v", got)
	}
	if got := get(t, box, "to=nobody%40example.org"); got == nil || len(got) != 0 {
		t.Errorf("messages of nobody: %#v, want an empty list", got)
	}
	if _, ok := box.Newest("nobody@example.org"); ok {
		t.Error("nobody has mail")
	}
}

func TestDecoding(t *testing.T) {
	for name, tc := range map[string]struct{ mail, subject, text string }{
		"base64 body": {
			"Subject: s\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64\n\n5L2g5aW9\n",
			"s", "你好",
		},
		"quoted-printable body": {
			"Subject: s\nContent-Transfer-Encoding: quoted-printable\n\ncaf=C3=A9=\n!\n", "s", "café!",
		},
		"latin-1 body": {"Subject: s\nContent-Type: text/plain; charset=ISO-8859-1\n\ncaf\xe9\n", "s", "café"},
		"plain text of alternatives": {
			"Subject: s\nContent-Type: multipart/alternative; boundary=b\n\n" +
				"--b\nContent-Type: text/html\n\n<p>html</p>\n" +
				"--b\nContent-Type: text/plain\nContent-Transfer-Encoding: quoted-printable\n\nplain =E2=9C=93\n" +
				"--b--\n",
			"s", "plain ✓",
		},
		"html alone":               {"Subject: s\nContent-Type: text/html\n\n<p>html</p>\n", "s", "<p>html</p>"},
		"no header at all":         {"just words\n", "", "just words"},
		"invalid utf-8":            {"Subject: s\n\na\xffb\n", "s", "a\uFFFDb"},
		"unknown word encoding":    {"Subject: =?x-unknown?B?YQ==?=\n\nt\n", "=?x-unknown?B?YQ==?=", "t"},
		"broken base64":            {"Subject: s\nContent-Transfer-Encoding: base64\n\naGVsbG8h!!!\n", "s", "hello!"},
		"multipart without end":    {"Subject: s\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\ncut", "s", "cut"},
		"multipart without border": {"Subject: s\nContent-Type: multipart/mixed\n\nx\n", "s", ""},
	} {
		t.Run(name, func(t *testing.T) {
			box := run(t)
			send(t, box, "a@localhost", []string{"b@localhost"}, strings.ReplaceAll(tc.mail, "\n", "\r\n"))
			got, ok := box.Newest("b@localhost")
			if !ok || got.Subject != tc.subject || got.Text != tc.text {
				t.Errorf("got %q / %q (%v), want %q / %q", got.Subject, got.Text, ok, tc.subject, tc.text)
			}
		})
	}
}

// What is refused gets a reply with a reason, and the next sender is served.
func TestRefusals(t *testing.T) {
	box := run(t)
	big := "Subject: big\r\n\r\n" + strings.Repeat("0123456789abcdef0123456789abcdef\r\n", 4000)
	if err := trySend(box, "a@localhost", []string{"b@localhost"}, big); err == nil ||
		!strings.Contains(err.Error(), "552") {
		t.Errorf("a mail of %d bytes: %v, want code 552", len(big), err)
	}
	var many []string
	for i := range 60 {
		many = append(many, fmt.Sprintf("u%d@localhost", i))
	}
	if err := trySend(box, "a@localhost", many, "Subject: s\r\n\r\nx\r\n"); err == nil ||
		!strings.Contains(err.Error(), "452") {
		t.Errorf("60 recipients: %v, want code 452", err)
	}
	for name, lines := range map[string]string{
		"recipient before sender": "HELO x\r\nRCPT TO:<a@b>\r\n",
		"text before recipient":   "HELO x\r\nMAIL FROM:<a@b>\r\nDATA\r\n",
		"no SMTP at all":          "GET / HTTP/1.1\r\nHost: x\r\n",
		"random bytes":            "\x00\xff\x16\x03\x01\r\n\r\n",
	} {
		if code := lastReply(t, box, lines); code < '4' {
			t.Errorf("%s: reply %c.., want 4.. or 5..", name, code)
		}
	}
	send(t, box, "a@localhost", []string{"b@localhost"}, "Subject: after all\r\n\r\nx\r\n")
	if got, ok := box.Newest("b@localhost"); !ok || got.Subject != "after all" {
		t.Errorf("after bad senders: %+v, %v", got, ok)
	}
}

func TestHTTPRefusesWrongLimits(t *testing.T) {
	box := run(t)
	for _, limit := range []string{"0", "-1", "many"} {
		response, err := http.Get("http://" + box.HTTPAddr() + "/messages?limit=" + limit)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != http.StatusBadRequest {
			t.Errorf("limit %s: %s, want 400", limit, response.Status)
		}
	}
	response, err := http.Get("http://" + box.HTTPAddr() + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Errorf("healthz: %s", response.Status)
	}
}

func TestRunEndsWithItsContextAlthoughSomebodyIsConnected(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	box, err := mailbox.New(mailbox.Config{SMTPBind: "127.0.0.1:0", HTTPBind: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- box.Run(ctx) }()
	conn, err := net.Dial("tcp", box.SMTPAddr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := bufio.NewReader(conn).ReadString('\n'); err != nil {
		t.Fatalf("first line: %v", err)
	}
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("Run: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Run goes on")
	}
	if conn, err := net.Dial("tcp", box.SMTPAddr()); err == nil {
		_ = conn.Close()
		t.Error("the port still answers")
	}
}

func TestNewNamesThePortThatIsTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, config := range []mailbox.Config{
		{SMTPBind: taken.Addr().String(), HTTPBind: "127.0.0.1:0"},
		{SMTPBind: "127.0.0.1:0", HTTPBind: taken.Addr().String()},
	} {
		if _, err := mailbox.New(config); err == nil || !strings.Contains(err.Error(), taken.Addr().String()) {
			t.Errorf("%+v: %v", config, err)
		}
	}
}

func run(t *testing.T) *mailbox.Mailbox {
	t.Helper()
	box, err := mailbox.New(mailbox.Config{SMTPBind: "127.0.0.1:0", HTTPBind: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- box.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return box
}

func send(t *testing.T, box *mailbox.Mailbox, from string, to []string, text string) {
	t.Helper()
	if err := trySend(box, from, to, text); err != nil {
		t.Fatalf("send: %v", err)
	}
}

func trySend(box *mailbox.Mailbox, from string, to []string, text string) error {
	return smtp.SendMail(box.SMTPAddr(), nil, from, to, []byte(text))
}

// lastReply sends lines and QUIT and returns the first digit of the reply that
// came before the one to QUIT (or of the last one, when the server hung up).
func lastReply(t *testing.T, box *mailbox.Mailbox, lines string) byte {
	t.Helper()
	conn, err := net.Dial("tcp", box.SMTPAddr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := conn.Write([]byte(lines + "QUIT\r\n")); err != nil {
		t.Fatal(err)
	}
	var replies []string
	for scanner := bufio.NewScanner(conn); scanner.Scan(); {
		if !strings.HasPrefix(scanner.Text(), "221") {
			replies = append(replies, scanner.Text())
		}
	}
	if len(replies) < 2 || replies[len(replies)-1] == "" {
		t.Fatalf("%q: replies %q", lines, replies)
	}
	return replies[len(replies)-1][0]
}

func get(t *testing.T, box *mailbox.Mailbox, query string) []mailbox.Message {
	t.Helper()
	response, err := http.Get("http://" + box.HTTPAddr() + "/messages?" + query)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var messages []mailbox.Message
	if err := json.NewDecoder(response.Body).Decode(&messages); err != nil {
		t.Fatal(err)
	}
	return messages
}
