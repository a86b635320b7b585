package fuzz

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"
)

// answer is what came for one request of an exchange.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// sent reads the bytes of an exchange as a server would: the requests that are whole,
// and whether something else follows them. Up to three bytes behind a request are none:
// net/http waits for a fourth like for the first, as long as a connection may be idle.
func sent(pieces [][]byte) (whole []*http.Request, more bool) {
	r := bufio.NewReader(bytes.NewReader(bytes.Join(pieces, nil)))
	for {
		if b, _ := r.Peek(4); len(b) == 0 || len(b) < 4 && len(whole) > 0 {
			return whole, false
		}
		q, err := http.ReadRequest(r)
		if err != nil {
			return whole, true
		}
		if _, err := io.Copy(io.Discard, q.Body); err != nil {
			return whole, true
		}
		whole = append(whole, q)
	}
}

// maxAnswer bounds an answer; those of the gate have a few KiB.
const maxAnswer = 4 << 20

// exchange opens a connection to the gate, writes, and reads the answers.
func (p *player) exchange(ctx context.Context, s Step) (answers []answer) {
	nc, err := dial(ctx, p.run.cfg.Target.Gate)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil
	case err != nil:
		p.find(ruleUnanswered, "gate", "cannot connect: %v", err)
		return nil
	}
	defer nc.Close()
	written := make(chan error, 1)
	go func() {
		for i, piece := range s.Pieces {
			if i > 0 {
				pause(ctx, s.Pause)
			}
			if _, err := nc.Write(piece); err != nil {
				written <- err
				return
			}
		}
		written <- nil
	}()
	_ = nc.SetDeadline(time.Now().Add(p.run.cfg.Patience + time.Duration(len(s.Pieces))*s.Pause))
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	requests, more := sent(s.Pieces)
	r := bufio.NewReader(nc)
	for _, q := range requests {
		a, last, err := readAnswer(r, q)
		if err != nil {
			p.noAnswer(ctx, q, s, err, written)
			return answers
		}
		answers = append(answers, *a)
		p.judge(q, a, s.Mangled)
		if last {
			return answers
		}
	}
	if more {
		p.refusal(ctx, r)
	}
	return answers
}

// readAnswer skips the answers of the kind "go on". last says that the connection ends.
func readAnswer(r *bufio.Reader, q *http.Request) (a *answer, last bool, err error) {
	for {
		resp, err := http.ReadResponse(r, q)
		if err != nil {
			return nil, false, err
		}
		body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
		if err != nil {
			return nil, false, err
		}
		if resp.StatusCode >= 200 {
			return &answer{resp.StatusCode, resp.Header, body}, resp.Close, nil
		}
	}
}

// noAnswer judges a connection that ended without the answer to a whole request. A
// server may close while a body of more than it takes is still on its way.
func (p *player) noAnswer(ctx context.Context, q *http.Request, s Step, err error, written <-chan error) {
	if ctx.Err() != nil {
		return // the run ended
	}
	total := 0
	for _, piece := range s.Pieces {
		total += len(piece)
	}
	if s.Mangled && !errors.Is(err, os.ErrDeadlineExceeded) || total > maxBody {
		p.run.count("HTTP, mangled", "closed")
		return
	}
	select {
	case failed := <-written:
		err = errors.Join(err, failed)
	default:
	}
	p.find(ruleUnanswered, p.place(q), "no answer: %v", err)
}

// maxBody is the largest body that the gate reads.
const maxBody = 64 << 10

// refusal reads what comes for bytes that are no whole request: a refusal or an end.
func (p *player) refusal(ctx context.Context, r *bufio.Reader) {
	a, _, err := readAnswer(r, nil)
	switch {
	case ctx.Err() != nil:
	case errors.Is(err, os.ErrDeadlineExceeded):
		p.find(ruleUnanswered, "HTTP, mangled", "neither an answer nor an end")
	case err != nil:
		p.run.count("HTTP, mangled", "closed")
	default:
		p.judge(nil, a, true)
	}
}

// place is how a request is called in the results.
func (p *player) place(q *http.Request) string {
	if q == nil {
		return "HTTP, mangled"
	}
	if o := p.run.doc.find(q.Method, q.URL.Path); o != nil {
		return o.String()
	}
	return "no operation"
}

// judge judges an answer of the gate.
func (p *player) judge(q *http.Request, a *answer, mangled bool) {
	where := p.place(q)
	p.run.count(where, fmt.Sprint(a.status))
	media := a.header.Get("Content-Type")
	if mangled && ofHTTP(a) {
		p.line(where, string(a.body))
		return
	}
	if a.status >= 500 && a.status != http.StatusServiceUnavailable {
		p.find(ruleServerError, where, "%d %s", a.status, a.body)
		return
	}
	if a.status == http.StatusServiceUnavailable || a.status == http.StatusTooManyRequests {
		if after := atoi(a.header.Get("Retry-After")); after < 1 || after > 24*60*60 {
			p.find(ruleServerError, where, "%d without a sane time: Retry-After %q", a.status,
				a.header.Get("Retry-After"))
		}
	}
	var o *operation
	head := q != nil && q.Method == http.MethodHead
	if q != nil {
		o = p.run.doc.find(q.Method, q.URL.Path)
	}
	switch {
	case o != nil:
		if err := o.judge(a.status, media, a.body, head); err != nil {
			p.find(ruleUndocumented, where, "%v", err)
		}
	case q != nil && a.status < 300 && slices.Contains(operators, q.URL.Path):
		return // texts for operators
	case head:
	default:
		if err := p.run.doc.problem(media, a.body); err != nil {
			p.find(ruleUndocumented, where, "%d: %v", a.status, err)
		}
	}
	p.looks(where, a)
}

// operators are paths that the document does not have.
var operators = []string{"/healthz", "/readyz", "/openapi.json", "/openapi.yaml"}

// ofHTTP says that net/http refused a request that is none, before the API saw it: in
// plain words, and closing the connection. Among these are 501 for a transfer coding and
// 505 for a version that HTTP/1.1 does not have.
func ofHTTP(a *answer) bool {
	return slices.Contains([]int{400, 408, 417, 431, 501, 505}, a.status) &&
		strings.HasPrefix(a.header.Get("Content-Type"), "text/plain") || a.status == 417 && len(a.body) == 0
}

// looks judges every text of an answer: those that a program shows to people.
func (p *player) looks(where string, a *answer) {
	if a.status >= 300 && bytes.Contains(a.body, []byte(canary)) {
		p.find(ruleRepeats, where, "%d repeats what was sent: %.200q", a.status, a.body)
	}
	for name, values := range a.header {
		for _, value := range values {
			if err := shownLine(value); err != nil {
				p.find(ruleShown, where, "the header %s has %v", name, err)
			}
		}
	}
	var value any
	if json.Unmarshal(a.body, &value) == nil {
		p.texts(where, "", value)
	}
}

// texts judges the texts of a JSON value.
func (p *player) texts(where, name string, value any) {
	switch value := value.(type) {
	case string:
		p.line(where, value)
		if name == "name" {
			p.shown(where, shownName(value))
		}
	case []any:
		for _, v := range value {
			p.texts(where, name, v)
		}
	case map[string]any:
		for n, v := range value {
			p.line(where, n)
			p.texts(where, n, v)
		}
	}
}

func (p *player) line(where, s string) { p.shown(where, shownLine(strings.TrimSuffix(s, "\n"))) }

func (p *player) shown(where string, err error) {
	if err != nil {
		p.find(ruleShown, where, "%v", err)
	}
}

// dial opens a connection.
func dial(ctx context.Context, address string) (*net.TCPConn, error) {
	d := net.Dialer{Timeout: 10 * time.Second}
	nc, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return nc.(*net.TCPConn), nil
}

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// fetch is a GET.
func fetch(ctx context.Context, url string) ([]byte, error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := fetcher.Do(q)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, resp.Status)
	}
	return body, err
}

// fetcher keeps no connection, which would count as one that did not come back.
var fetcher = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
