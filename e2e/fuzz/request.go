package fuzz

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// request is an HTTP request before it is bytes.
type request struct {
	method, target, version string
	header                  []string // whole lines
	body                    string
	// framing: "length", "chunks", "none", or a wrong one.
	framing string
}

// bytes writes the request down.
func (q *request) bytes(v values) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s\r\n", q.method, q.target, q.version)
	for _, line := range q.header {
		b.WriteString(line + "\r\n")
	}
	body := q.body
	switch q.framing {
	case "length":
		if body != "" || q.method == http.MethodPost {
			fmt.Fprintf(&b, "Content-Length: %d\r\n", len(body))
		}
	case "chunks":
		b.WriteString("Transfer-Encoding: chunked\r\n")
		body = chunked(v, body)
	case "too long":
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(body)+1+v.IntN(9))
	case "too short":
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(body)/2)
	case "both":
		fmt.Fprintf(&b, "Content-Length: %d\r\nTransfer-Encoding: chunked\r\n", len(body))
		body = chunked(v, body)
	case "odd":
		b.WriteString(pick(v, []string{
			"Content-Length: -1", "Content-Length: 1e3", "Content-Length: 99999999999999999999", "Content-Length: ",
			"Content-Length: 5\r\nContent-Length: 6", "Transfer-Encoding: gzip", "Transfer-Encoding: chunked, chunked",
			"Transfer-Encoding : chunked", "Content-Length: 0x10",
		}) + "\r\n")
	}
	b.WriteString("\r\n" + body)
	return []byte(b.String())
}

func chunked(v values, body string) string {
	var b strings.Builder
	for body != "" {
		n := min(len(body), 1+v.IntN(200))
		extension := pick(v, []string{"", "", "", ";a=b", ";" + strings.Repeat("x", 50)})
		fmt.Fprintf(&b, "%x%s\r\n%s\r\n", n, extension, body[:n])
		body = body[n:]
	}
	return b.String() + "0\r\n" + pick(v, []string{"", "", "X-Trailer: 1\r\n"}) + "\r\n"
}

// address is a client's, as a proxy before the gate would tell: limits count each.
func (v values) address() string {
	if v.chance(0.3) {
		return fmt.Sprintf("2001:db8:%x:%x::%x", v.IntN(1<<16), v.IntN(1<<16), v.IntN(1<<16))
	}
	return fmt.Sprintf("%d.%d.%d.%d", 1+v.IntN(120), v.IntN(256), v.IntN(256), 1+v.IntN(254))
}

// ask is a request of an operation, valid but for what body says.
func (m *maker) ask(o *operation, host, body string) *request {
	q := &request{method: o.method, target: m.path(o), version: "HTTP/1.1", body: body, framing: "length"}
	q.header = []string{"Host: " + host, "X-Forwarded-For: " + m.address()}
	if o.body() != nil {
		q.header = append(q.header, "Content-Type: application/json")
	}
	if o.authorised() {
		q.header = append(q.header, "Authorization: Bearer "+m.self.token)
	}
	return q
}

// path is the operation's, with its parameters.
func (m *maker) path(o *operation) string {
	path, query := o.template, url.Values{}
	for _, p := range o.parameters {
		value := strings.Trim(m.value(p.Value.Name, p.Value.Schema.Value, 0), `"`)
		switch p.Value.In {
		case "path":
			path = strings.ReplaceAll(path, "{"+p.Value.Name+"}", url.PathEscape(value))
		case "query":
			if p.Value.Required || m.chance(0.5) {
				query.Set(p.Value.Name, value)
			}
		}
	}
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return path
}

// twist makes something about a request odd that HTTP leaves to the program.
func (m *maker) twist(q *request) {
	switch m.IntN(8) {
	case 0:
		q.method = pick(m.values, []string{
			"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW", "get", "PROPFIND", canary,
		})
	case 1:
		q.target = m.odd(q.target)
	case 2:
		q.replace("Content-Type", pick(m.values, []string{
			"text/plain", "application/json; charset=utf-8", "application/json; charset=utf-16", "APPLICATION/JSON",
			"application/problem+json", "application/xml", "multipart/form-data", "application/" + canary, "json", ";",
			"application/json, text/plain", "", "application/cbor", "application/x-www-form-urlencoded",
		}))
	case 3:
		q.replace("Authorization", pick(m.values, []string{
			"", "Bearer", "Bearer  ", "Bearer " + strings.Repeat("A", 43), "Basic " + m.self.token,
			"bearer " + m.self.token,
			"Bearer " + m.self.token + "=", m.self.token, "Bearer " + m.self.token[:42], "Bearer \x80\xff",
			"Bearer " + canary,
			"Bearer " + strings.Repeat("x", 7000), "Bearer " + m.self.token + " " + m.self.token,
		}))
	case 4:
		q.header = append(q.header, pick(m.values, []string{
			"Accept: application/xml", "Accept: */*;q=0", "Accept: " + canary, "Accept-Encoding: gzip",
			"Content-Encoding: gzip",
			"Cookie: a=" + canary, "X-Request-Id: <" + canary + ">", "X-Request-Id: \x80",
			"Range: bytes=0-1", "If-None-Match: *",
			"Connection: close", "Connection: upgrade\r\nUpgrade: websocket", "Upgrade: h2c",
			"X-HTTP-Method-Override: DELETE",
			"Expect: 100-continue", "Origin: http://" + canary, "Accept-Language: \xff", "X-Forwarded-For: \x80, ,",
			"X-Forwarded-For: 127.0.0.1, 127.0.0.1", "Forwarded: for=" + canary, "Transfer-Encoding: identity",
			"X-Long: " + strings.Repeat("y", 9000), "Content-Length: 0",
		}))
	case 5:
		q.version = "HTTP/1.0"
	case 6:
		q.framing = "chunks"
	case 7:
		for i := range m.IntN(200) {
			q.header = append(q.header, fmt.Sprintf("X-%d: %d", i, i))
		}
	}
}

func (q *request) replace(name, value string) {
	for i, line := range q.header {
		if strings.HasPrefix(line, name+":") {
			q.header[i] = name + ": " + value
			return
		}
	}
	q.header = append(q.header, name+": "+value)
}

// odd is a path beside the right one.
func (v values) odd(target string) string {
	return pick(v, []string{
		target + "/", "/" + target, strings.ToUpper(target), target + "%00", target + "?later=" + canary,
		target + "?later=true&later=0",
		"/v1/../v1/me", "/v1/%2e%2e/" + canary, "/" + canary, "/v1/" + canary, "http://other.example" + target, "*",
		target + "?%zz", target + "?" + strings.Repeat("a=b&", 900), "/v1//me", "/%ff", "/\xff", "/v1/me;x=1",
		"/v1/me%2f",
		"/healthz", "/readyz", "/metrics", "/openapi.json", "/openapi.yaml", "/debug/pprof/", "/docs",
		"//" + canary + "/x",
		"/v1/sessions/..;/me", "/v1/me#x", "/./v1/me", "/v1/%6de", "/" + strings.Repeat("x", 5000),
		"/v1/codes/%E2%80%AE",
		"/%1b[2J", "/v1/\u202e",
	})
}

// mangle spoils a request below HTTP.
func (m *maker) mangle(q *request, s *Step) {
	s.Mangled = true
	switch m.IntN(10) {
	case 0:
		q.framing = pick(m.values, []string{"too long", "too short", "both", "odd", "none"})
	case 1:
		q.version = pick(m.values, []string{"HTTP/2.0", "HTTP/0.9", "HTTP/1.2", "HTTP/9.9", "", "http/1.1", canary})
	case 2:
		q.header = append(q.header, pick(m.values, []string{
			"no colon", ": no name", "Bad Name: x", "X\x00: y", "X: \x00", "X: a\rb", " folded",
			"X-Big: " + strings.Repeat("z", 20<<10),
			"Host: two.example", "Expect: " + canary, "Host: ", "X\x80: y", "X: \x7f",
		}))
	case 3:
		q.header = q.header[1:] // without Host
	case 4:
		q.method = pick(m.values, []string{"", "G T", "\x00", "GET\x1b[2J", strings.Repeat("M", 3000), "CONNECT"})
	case 5:
		q.target = pick(m.values, []string{
			"", "no-slash", "/a b", "/\x00", "/\x1b[31m", "http://",
			"/" + strings.Repeat("y", 18<<10),
		})
	}
	whole := q.bytes(m.values)
	s.Pieces = [][]byte{whole}
	switch m.IntN(6) {
	case 0: // cut
		s.Pieces = [][]byte{whole[:m.IntN(len(whole))]}
		s.Do, s.Learn = doExchange, ""
	case 1: // a changed byte
		whole[m.IntN(len(whole))] = byte(m.Uint32())
	case 2: // more behind it
		s.Pieces = append(s.Pieces, m.bytes())
	case 3: // in many pieces
		s.Pieces = pieces(m.values, whole, 40)
		s.Pause = time.Duration(m.IntN(10)) * time.Millisecond
	}
}

// pieces cuts bytes into some.
func pieces(v values, whole []byte, most int) (out [][]byte) {
	for len(whole) > 0 && len(out) < most {
		n := 1 + v.IntN(1+2*len(whole)/most)
		n = min(n, len(whole))
		out, whole = append(out, whole[:n]), whole[n:]
	}
	return append(out, whole)
}

func atoi(s string) int { n, _ := strconv.Atoi(s); return n }
