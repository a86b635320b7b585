package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/client/store"
	"github.com/msrchat/msrchat/client/store/sqlite"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/testenv"

	"github.com/msrchat/msrchat/e2e/cluster"
)

// window is one window of ann's on one of her devices. The windows of a device share
// the file of its store.
type window struct {
	name   string
	client *client.Client
	store  store.Store
}

// machine opens windows on a device: each call opens one more.
func machine(t *testing.T, ann cluster.Person, name string) func(change ...func(*client.Options)) window {
	t.Helper()
	file := filepath.Join(t.TempDir(), name+".db")
	n := 0
	return func(change ...func(*client.Options)) window {
		t.Helper()
		n++
		s, err := sqlite.Open(t.Context(), file, ann.Session.User.ID)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() }) // after the client's
		change = append([]func(*client.Options){func(o *client.Options) { o.Store = s }}, change...)
		c := ann.Connect(change...)
		go func() {
			for range c.Events() { //nolint:revive // read so that the client goes on
			}
		}()
		return window{name: fmt.Sprintf("%s, window %d", name, n), client: c, store: s}
	}
}

// own is the user's own state as the window's store has it.
func (w window) own(t *testing.T, conversation uint64) store.Conversation {
	t.Helper()
	c, _, err := w.store.Conversation(t.Context(), conversation)
	if err != nil {
		t.Fatalf("%s: %v", w.name, err)
	}
	return c
}

// agree waits until all windows have the same own state, which has reached a server.
func agree(t *testing.T, conversation, read uint64, draft string, windows ...window) {
	t.Helper()
	began := time.Now()
	for _, w := range windows {
		testenv.Until(t, fmt.Sprintf("%s has read %d and the draft %q", w.name, read, draft), func() bool {
			c := w.own(t, conversation)
			return c.Own.Read == read && c.Own.Draft == draft && !c.Own.Unsent() &&
				c.Unread() == int(c.HeadOrdinal-read)
		})
	}
	took := time.Since(began).Round(time.Millisecond)
	t.Logf("%d windows agree on %d and %q after %v", len(windows), read, draft, took)
}

// noGate is the gate of a device without a network.
type noGate struct{}

func (noGate) Assign(context.Context, client.Token, []string) (client.Assignment, error) {
	return client.Assignment{}, errs.Wrap(errs.CodeUnavailable, errors.New("no route"), "the gate cannot be reached")
}

// noServer hides the servers that the store remembers.
type noServer struct{ store.Store }

func (noServer) Meta(context.Context, string) (string, error) { return "", nil }

func away(o *client.Options) { o.Gate, o.Store = noGate{}, noServer{o.Store} }

// A person has two windows on a laptop, and a phone. Read marks and drafts agree
// while all are online, and after the laptop was away so long that no server of that
// time is left.
func TestDevicesAndWindowsAgree(t *testing.T) {
	c := cluster.Run(t, cluster.Config{})
	registered := c.Register("ann")
	ben := cluster.NewTalker(c.Register("ben").Connect(), "ben", "ann")
	ben.Begin(t)
	for _, text := range cluster.Corpus(9) {
		ben.Send(t, text)
	}
	laptop := machine(t, *registered, "laptop")
	onPhone := *registered
	login, err := c.GateClient().Login(t.Context(), client.Credentials{
		Name: "ann", Password: registered.Password, Device: "phone",
	})
	if err != nil {
		t.Fatal(err)
	}
	onPhone.Session = login.Session
	one, two, phone := laptop(), laptop(), machine(t, onPhone, "phone")()
	with, err := one.client.Contact(t.Context(), "ben")
	if err != nil {
		t.Fatal(err)
	}
	id := with.ID
	has := func(n uint64, windows ...window) {
		t.Helper()
		for _, w := range windows {
			what := fmt.Sprintf("%s has %d messages", w.name, n)
			testenv.Until(t, what, func() bool { return w.own(t, id).Head == n })
		}
	}
	has(9, one, two, phone)

	mustSet(t, one.client.SetRead(t.Context(), id, 4))
	agree(t, id, 4, "", one, two, phone)
	mustSet(t, phone.client.SetDraft(t.Context(), id, "liebe 贝"))
	agree(t, id, 4, "liebe 贝", one, two, phone)
	mustSet(t, two.client.SetDraft(t.Context(), id, "liebe 贝, 👋"))
	mustSet(t, one.client.SetRead(t.Context(), id, 2)) // less than before
	mustSet(t, two.client.SetRead(t.Context(), id, 9))
	agree(t, id, 9, "liebe 贝, 👋", one, two, phone)

	// The laptop has no network. Its user goes on there, and later on the phone.
	one.client.Close()
	two.client.Close()
	off := laptop(away)
	mustSet(t, off.client.SetDraft(t.Context(), id, "typed on the laptop"))
	for _, text := range cluster.Corpus(300) {
		ben.Send(t, text)
	}
	has(309, phone)
	mustSet(t, phone.client.SetRead(t.Context(), id, 200))
	mustSet(t, phone.client.SetDraft(t.Context(), id, "typed on the phone"))
	agree(t, id, 200, "typed on the phone", phone)
	off.client.Close()
	for _, old := range c.Chats {
		c.AddChat()
		old.Stop()
	}
	// Nothing that was typed is lost: the two drafts stand below each other.
	back, again := laptop(), laptop()
	has(309, back, again)
	agree(t, id, 200, "typed on the phone\ntyped on the laptop", back, again, phone)
	fresh := machine(t, onPhone, "new phone")()
	has(309, fresh)
	agree(t, id, 200, "typed on the phone\ntyped on the laptop", fresh)
}

func mustSet(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
