package fuzz

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Trace is what one case did, as the bytes that went out, so that it can be done again.
type Trace struct {
	Kind            string
	Seed, Worker, N uint64
	// Secrets are the tokens that other people and this case's had at its beginning: the
	// owner's name by the token. A new system gives them others, of the same length.
	Secrets map[string]string
	Steps   []Step
}

// Step is something that a case did. Its values are those of the first time.
type Step struct {
	// At is where: "gate", or "chat" or "relay" with the server's number. Conn is the
	// case's connection there, Do one of the words below.
	At   string
	Conn int `json:",omitempty"`
	Do   string
	// Pieces are written one after the other, Pause apart.
	Pieces [][]byte      `json:",omitempty"`
	Pause  time.Duration `json:",omitempty"`
	// Mangled says that the request was spoilt below HTTP, so that the refusal need not
	// be the API's.
	Mangled bool `json:",omitempty"`
	// Learn says which secret came of it, Value what that was: "token", or "code" and
	// the address that it was mailed to.
	Learn, Value string `json:",omitempty"`
}

// What a step does.
const (
	doExchange = "exchange" // gate: connect, write, read the answers, close
	doOpen     = "open"     // chat: connect
	doWrite    = "write"    // chat: write
	doAwait    = "await"    // chat: wait until all is answered
	doShut     = "shut"     // chat: end the own side
	doClose    = "close"    // chat: close
	doCall     = "call"     // relay: send the pieces as messages of a stream; Learn names the method
)

// Save writes the trace, and the same for people, to a folder.
func (t *Trace) Save(folder string, found *Finding) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	text, err := json.MarshalIndent(t, "", " ")
	if err != nil {
		return err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\n%s, seed %d, worker %d, case %d\n\n", found, t.Kind, t.Seed, t.Worker, t.N)
	for i, s := range t.Steps {
		fmt.Fprintf(&b, "%3d %s/%d %s", i+1, s.At, s.Conn, s.Do)
		if s.Learn != "" {
			fmt.Fprintf(&b, " -> %s %s", s.Learn, s.Value)
		}
		fmt.Fprintln(&b)
		for _, p := range s.Pieces {
			fmt.Fprintf(&b, "      %+q\n", p)
		}
	}
	return joined(
		os.WriteFile(filepath.Join(folder, "trace.json"), text, 0o600),
		os.WriteFile(filepath.Join(folder, "trace.txt"), b.Bytes(), 0o600),
	)
}

// Load reads what Save wrote.
func Load(folder string) (*Trace, error) {
	text, err := os.ReadFile(filepath.Join(folder, "trace.json"))
	if err != nil {
		return nil, err
	}
	t := &Trace{}
	if err := json.Unmarshal(text, t); err != nil {
		return nil, fmt.Errorf("%s: %w", folder, err)
	}
	return t, nil
}

// secrets replaces those of a trace by those of this system. The zero value replaces
// nothing.
type secrets struct{ old, new [][]byte }

// add notes a secret. A token is also replaced as the 32 bytes of a Hello.
func (s *secrets) add(was, is string) {
	if was == is || was == "" || is == "" {
		return
	}
	s.old, s.new = append(s.old, []byte(was)), append(s.new, []byte(is))
	a, errA := base64.RawURLEncoding.DecodeString(was)
	b, errB := base64.RawURLEncoding.DecodeString(is)
	if errA == nil && errB == nil && len(a) == tokenBytes && len(b) == tokenBytes {
		s.old, s.new = append(s.old, a), append(s.new, b)
	}
}

func (s *secrets) replace(pieces [][]byte) [][]byte {
	if len(s.old) == 0 {
		return pieces
	}
	out := make([][]byte, len(pieces))
	for i, p := range pieces {
		for n := range s.old {
			p = bytes.ReplaceAll(p, s.old[n], s.new[n])
		}
		out[i] = p
	}
	return out
}

// tokenBytes is the length of a session's token.
const tokenBytes = 32
