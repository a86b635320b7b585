package profile_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/client/internal/profile"
	"github.com/msrchat/msrchat/client/store"
	"github.com/msrchat/msrchat/shared/content"
	"github.com/msrchat/msrchat/shared/errs"
)

func login(id uint64, name string) profile.Login {
	return profile.Login{Gate: "http://127.0.0.1:7700", Session: client.Session{
		Token: client.Token("0123456789abcdef0123456789abcdef"),
		User:  client.User{ID: id, Name: name}, ExpiresAt: time.UnixMilli(1e12),
	}}
}

func fresh(t *testing.T) profile.Profile {
	t.Helper()
	p, err := profile.New(t.TempDir(), "work")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func save(t *testing.T, p profile.Profile, l profile.Login, registered bool) {
	t.Helper()
	if err := p.Save(t.Context(), l, registered); err != nil {
		t.Fatal(err)
	}
}

func TestALoginIsKeptPrivateAndForgotten(t *testing.T) {
	p := fresh(t)
	if _, err := p.Login(); !errors.Is(err, profile.ErrLoggedOut) {
		t.Errorf("before: %v", err)
	}
	if err := os.MkdirAll(p.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	want := login(17, "王小明")
	save(t, p, want, true)
	got, err := p.Login()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	err = filepath.WalkDir(p.Dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o077 != 0 && !strings.Contains(path, ".opening") && !strings.Contains(path, ".sending") {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(p.Forget(), p.Forget()); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Login(); !errors.Is(err, profile.ErrLoggedOut) {
		t.Errorf("after: %v", err)
	}
}

func TestADamagedLoginAsksForANewOne(t *testing.T) {
	p := fresh(t)
	for _, content := range []string{
		"", "{", `{"token":"§§","user_id":"1"}`, `{"token":"AAAA","user_id":"0"}`,
		`{"token":"AAAA"}`,
	} {
		if err := os.MkdirAll(p.Dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(p.Dir, "session.json"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Login(); errs.CodeOf(err) != errs.CodeUnauthenticated {
			t.Errorf("%q: %v", content, err)
		}
	}
}

func TestTheDeviceStaysTheSame(t *testing.T) {
	p := fresh(t)
	first, err := p.Device()
	if err != nil || len(first) < 16 {
		t.Fatalf("%q, %v", first, err)
	}
	if second, err := p.Device(); err != nil || second != first {
		t.Errorf("then %q, %v", second, err)
	}
}

func TestProfileNames(t *testing.T) {
	for _, bad := range []string{"", ".", "..", "../x", "a/b", ".hidden", "-x", strings.Repeat("a", 65), "a b", "é"} {
		if _, err := profile.New("/tmp", bad); errs.CodeOf(err) != errs.CodeInvalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
	t.Setenv("XDG_STATE_HOME", "/state")
	if p, err := profile.New("", "a"); err != nil || p.Dir != "/state/msrchat/a" {
		t.Errorf("%+v, %v", p, err)
	}
	t.Setenv("XDG_STATE_HOME", "relative") // must be ignored, says the XDG specification
	t.Setenv("HOME", "/home/ann")
	if p, err := profile.New("", "a"); err != nil || p.Dir != "/home/ann/.local/state/msrchat/a" {
		t.Errorf("%+v, %v", p, err)
	}
}

// queue puts one message into the account's outbox.
func queue(t *testing.T, p profile.Profile, l profile.Login) {
	t.Helper()
	s, err := p.Store(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	id, err := store.NewMessageID()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Enqueue(t.Context(), 0, store.Outgoing{
		ID: id, Conversation: 7, Kind: content.Text,
		Body: []byte("hi"), At: time.Now(),
	}); err != nil {
		t.Fatal(err)
	}
}

func queued(t *testing.T, p profile.Profile, l profile.Login) (n int, listed bool) {
	t.Helper()
	s, err := p.Store(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	list, err := s.Queued(t.Context(), 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	state, err := s.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return len(list), state.Listed
}

func TestTheOutboxGoesToItsOwnAccountOnly(t *testing.T) {
	p := fresh(t)
	alice := login(17, "Alice")
	save(t, p, alice, true)
	if n, listed := queued(t, p, alice); n != 0 || !listed {
		t.Errorf("a new account: %d queued, listed %v", n, listed)
	}
	queue(t, p, alice)

	save(t, p, login(17, "ALICE"), false) // logged in again
	if n, _ := queued(t, p, alice); n != 1 {
		t.Errorf("after logging in again: %d queued", n)
	}
	bob := login(18, "bob")
	save(t, p, bob, false)
	if n, listed := queued(t, p, bob); n != 0 || listed {
		t.Errorf("another account: %d queued, listed %v", n, listed)
	}
	save(t, p, alice, false)
	if n, _ := queued(t, p, alice); n != 1 {
		t.Errorf("back again: %d queued", n)
	}
	// A server that was set up anew gives the same number to another person, or
	// to the same name.
	save(t, p, login(17, "mallory"), false)
	if n, _ := queued(t, p, login(17, "mallory")); n != 0 {
		t.Errorf("another person's: %d queued", n)
	}
	save(t, p, alice, false)
	queue(t, p, alice)
	save(t, p, alice, true)
	if n, _ := queued(t, p, alice); n != 0 {
		t.Errorf("registered anew: %d queued", n)
	}
	aside, err := filepath.Glob(filepath.Join(p.Dir, "*.old-*"))
	if err != nil || len(aside) < 3 {
		t.Errorf("set aside: %q, %v", aside, err)
	}
}
