// Package profile is a person's place on this machine: who is logged in, where,
// and the file that holds the outbox and the messages.
//
//	$XDG_STATE_HOME/msrchat/PROFILE/          0700
//	    session.json                          0600, the session's secret
//	    device                                0600, names this installation to gate
//	    messages-USER.db                      0600, see package sqlite
package profile

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/client/store"
	"github.com/msrchat/msrchat/client/store/sqlite"
	"github.com/msrchat/msrchat/shared/errs"
)

// ErrLoggedOut: nobody is logged in.
var ErrLoggedOut = errs.New(errs.CodeUnauthenticated, "nobody is logged in")

// Profile is a folder. It is made when something is first kept in it.
type Profile struct{ Name, Dir string }

var validName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// New returns the profile of a name under a state folder; "" for the folder
// means the user's ($XDG_STATE_HOME, else ~/.local/state).
func New(stateHome, name string) (Profile, error) {
	if !validName.MatchString(name) {
		return Profile{}, errs.New(errs.CodeInvalid,
			"a profile's name has letters, digits and . _ - and at most 64 of them").In("profile")
	}
	if stateHome == "" {
		if stateHome = os.Getenv("XDG_STATE_HOME"); !filepath.IsAbs(stateHome) {
			home, err := os.UserHomeDir()
			if err != nil {
				return Profile{}, fmt.Errorf("find the state folder: %w", err)
			}
			stateHome = filepath.Join(home, ".local", "state")
		}
	}
	return Profile{Name: name, Dir: filepath.Join(stateHome, "msrchat", name)}, nil
}

// make creates the folder, which only its owner may read.
func (p Profile) make() error {
	if err := os.MkdirAll(p.Dir, 0o700); err != nil {
		return fmt.Errorf("make profile: %w", err)
	}
	if err := os.Chmod(p.Dir, 0o700); err != nil {
		return fmt.Errorf("close profile: %w", err)
	}
	return nil
}

// Login is a session and the gate that gave it.
type Login struct {
	Gate    string
	Session client.Session
}

type loginFile struct {
	Gate        string `json:"gate"`
	UserID      string `json:"user_id"`
	UserName    string `json:"user_name"`
	Token       string `json:"token"`
	ExpiresAtMS int64  `json:"expires_at_ms"`
}

func (p Profile) loginPath() string { return filepath.Join(p.Dir, "session.json") }

// Login returns who is logged in, or ErrLoggedOut.
func (p Profile) Login() (Login, error) {
	raw, err := os.ReadFile(p.loginPath())
	if errors.Is(err, fs.ErrNotExist) {
		return Login{}, ErrLoggedOut
	}
	if err != nil {
		return Login{}, fmt.Errorf("read session: %w", err)
	}
	var f loginFile
	broken := errs.New(errs.CodeUnauthenticated, "the session file %s is damaged", p.loginPath())
	if err := json.Unmarshal(raw, &f); err != nil {
		return Login{}, broken
	}
	token, err := client.ParseToken(f.Token)
	id, idErr := strconv.ParseUint(f.UserID, 10, 64)
	if err != nil || idErr != nil || id == 0 {
		return Login{}, broken
	}
	return Login{Gate: f.Gate, Session: client.Session{
		Token: token, User: client.User{ID: id, Name: f.UserName}, ExpiresAt: time.UnixMilli(f.ExpiresAtMS),
	}}, nil
}

// Save keeps a login. For a new account (registered just now) the messages of
// an account of the same number, of a server that is gone, are set aside.
func (p Profile) Save(ctx context.Context, l Login, registered bool) error {
	if err := p.make(); err != nil {
		return err
	}
	if err := p.claim(ctx, l, registered); err != nil {
		return err
	}
	s := l.Session
	raw, err := json.MarshalIndent(loginFile{
		Gate: l.Gate, UserID: strconv.FormatUint(s.User.ID, 10), UserName: s.User.Name,
		Token: s.Token.Encode(), ExpiresAtMS: s.ExpiresAt.UnixMilli(),
	}, "", "  ")
	if err != nil {
		return fmt.Errorf("encode session: %w", err)
	}
	return p.write(p.loginPath(), append(raw, '\n'))
}

// write replaces a file in one step.
func (p Profile) write(path string, data []byte) (err error) {
	f, err := os.CreateTemp(p.Dir, ".new-*") // 0600
	if err != nil {
		return fmt.Errorf("write profile: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write profile: %w", err)
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("write profile: %w", err)
	}
	return nil
}

// Forget removes the login; messages and outbox stay for the next one.
func (p Profile) Forget() error {
	if err := os.Remove(p.loginPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove session: %w", err)
	}
	return nil
}

// Device is the name of this installation, made at the first call. Gate ends a
// device's older session when it gives a new one.
func (p Profile) Device() (string, error) {
	path := filepath.Join(p.Dir, "device")
	if raw, err := os.ReadFile(path); err == nil && len(raw) > 0 {
		return strings.TrimSpace(string(raw)), nil
	}
	if err := p.make(); err != nil {
		return "", err
	}
	id := make([]byte, 8)
	_, _ = rand.Read(id) // never fails
	device := "msrchat-" + hex.EncodeToString(id)
	return device, p.write(path, []byte(device+"\n"))
}

// metaOwner is the name of the account that a store belongs to.
const metaOwner = "name"

// Store opens the messages of the login's account.
func (p Profile) Store(ctx context.Context, l Login) (*sqlite.Store, error) {
	if err := p.make(); err != nil {
		return nil, err
	}
	return sqlite.Open(ctx, p.storePath(l.Session.User.ID), l.Session.User.ID)
}

func (p Profile) storePath(user uint64) string {
	return filepath.Join(p.Dir, "messages-"+strconv.FormatUint(user, 10)+".db")
}

// claim makes sure that the store is this account's: a server that is set up again
// starts ids from 1, and a message must not go to another account with the same id.
func (p Profile) claim(ctx context.Context, l Login, registered bool) error {
	if registered {
		if err := p.setAside(l.Session.User.ID); err != nil {
			return err
		}
	}
	s, owner, err := p.openOwned(ctx, l)
	if err != nil {
		return err
	}
	if owner != "" && store.PeerKey(owner) != store.PeerKey(l.Session.User.Name) {
		if err := errors.Join(s.Close(), p.setAside(l.Session.User.ID)); err != nil {
			return err
		}
		if s, _, err = p.openOwned(ctx, l); err != nil {
			return err
		}
	}
	err = s.SetMeta(ctx, metaOwner, l.Session.User.Name)
	if err == nil && registered {
		err = s.SetListed(ctx, 0) // a new account has no conversations: all are new
	}
	return errors.Join(err, s.Close())
}

func (p Profile) openOwned(ctx context.Context, l Login) (*sqlite.Store, string, error) {
	s, err := p.Store(ctx, l)
	if err != nil {
		return nil, "", err
	}
	owner, err := s.Meta(ctx, metaOwner)
	if err != nil {
		return nil, "", errors.Join(err, s.Close())
	}
	return s, owner, nil
}

// setAside renames a store, so that nothing that was typed is deleted.
func (p Profile) setAside(user uint64) error {
	path := p.storePath(user)
	aside := path + ".old-" + time.Now().UTC().Format("20060102T150405.000")
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Rename(path+suffix, aside+suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("set messages aside: %w", err)
		}
	}
	return nil
}
