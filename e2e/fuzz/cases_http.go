package fuzz

import (
	"bytes"
	"context"
	"net/http"
	"time"
)

func (w *worker) maker(v values) *maker { return &maker{values: v, self: w.self, world: w.run.world} }

// operations asks for some, mostly valid, with one thing odd at a time.
func operations(ctx context.Context, w *worker, p *player, v values) {
	m := w.maker(v)
	for range 1 + v.IntN(6) {
		if ctx.Err() != nil {
			return
		}
		s := Step{At: "gate", Do: doExchange}
		for range 1 + v.IntN(5)/4*3 { // pipelined, at times
			s.Pieces = append(s.Pieces, m.some(w.run).bytes(v))
		}
		if len(s.Pieces) > 1 {
			s.Pieces = [][]byte{bytes.Join(s.Pieces, nil)}
		}
		p.do(ctx, s)
	}
}

// some is a request of any operation.
func (m *maker) some(r *run) *request {
	o := pick(m.values, r.doc.operations)
	body, schema := "", o.body()
	if schema != nil {
		switch {
		case m.chance(0.3):
			body = m.value("", schema, 0)
		case m.chance(0.9):
			body = m.spoilt(schema)
		default:
			body = m.junk()
		}
	} else if m.chance(0.05) {
		body = m.junk()
	}
	q := m.ask(o, r.cfg.Target.Gate, body)
	if m.chance(0.35) {
		m.twist(q)
	}
	return q
}

// newcomers register, most with something odd about them, log in, and are seen by somebody.
func newcomers(ctx context.Context, w *worker, p *player, v values) {
	m := w.maker(v)
	made := &person{name: "n" + v.word(), email: v.word() + "@example.org", password: "correct horse", device: "d"}
	m.self = made
	switch v.IntN(6) {
	case 0:
		made.email = v.email()
	case 1:
		made.device = v.text()
	case 2:
		made.password = v.text()
	case 3: // nothing odd
	default:
		made.name = v.name()
	}
	host := w.run.cfg.Target.Gate
	m.fix = map[string]string{"email": m.quote(made.email), "device": m.quote(made.device)}
	codes, accounts := w.run.doc.find(http.MethodPost, "/v1/codes"), w.run.doc.find(http.MethodPost, "/v1/accounts")
	sessions := w.run.doc.find(http.MethodPost, "/v1/sessions")
	if codes == nil || accounts == nil || sessions == nil {
		return // a later API: its operations are driven all the same
	}
	do := func(o *operation, learn string) string {
		q := m.ask(o, host, m.value("", o.body(), 0))
		return p.do(ctx, Step{At: "gate", Do: doExchange, Pieces: [][]byte{q.bytes(v)}, Learn: learn})
	}
	if m.code = do(codes, "code "+made.email); m.code == "" {
		return
	}
	if made.token = do(accounts, "token"); made.token == "" {
		return
	}
	m.fix["email"], m.fix["name"] = "", m.quote(made.name)
	delete(m.fix, "email")
	do(sessions, "token")
	seen(ctx, w, p, v, made)
	for range 2 {
		q := m.some(w.run) // as the newcomer
		p.do(ctx, Step{At: "gate", Do: doExchange, Pieces: [][]byte{q.bytes(v)}})
	}
}

// name is one that somebody might choose to be taken for another, or worse.
func (v values) name() string {
	for {
		if s := "n" + v.word() + v.text(); len(s) < 200 || v.chance(0.1) {
			return s
		}
	}
}

// almostHTTP spoils requests below the API.
func almostHTTP(ctx context.Context, w *worker, p *player, v values) {
	m := w.maker(v)
	s := Step{At: "gate", Do: doExchange}
	switch v.IntN(12) {
	case 0: // no HTTP at all
		s.Mangled = true
		s.Pieces = [][]byte{v.bytes(), []byte(v.text() + "\r\n\r\n")}
	case 1: // slow: each piece in time, the whole too late or not
		s.Mangled = true
		s.Pieces = pieces(v, m.some(w.run).bytes(v), 12)
		s.Pause = time.Duration(v.IntN(700)) * time.Millisecond
	default:
		m.mangle(m.some(w.run), &s)
	}
	p.do(ctx, s)
}
