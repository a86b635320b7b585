package e2e_test

import (
	"context"
	"math/rand/v2"
	"os"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/msrchat/msrchat/chat"
	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/e2e/cluster"
	"github.com/msrchat/msrchat/proof/account"
	"github.com/msrchat/msrchat/proof/check"
	"github.com/msrchat/msrchat/proof/device"
	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/testenv"
)

// Twenty people on two devices each keep talking while a chat server drains and
// another one comes, and one push in twenty is dropped; the journals and the log
// prove that nothing was lost.
func TestACrowdKeepsTalking(t *testing.T) {
	c := cluster.Run(t, cluster.Config{Chat: func(cfg *chat.Config) {
		cfg.Hooks.DropPush = func(*chatv1.Event) bool { return rand.IntN(20) == 0 }
	}})
	db := testenv.Open(t, c.Database())
	people, conversations, err := account.MakePairs(t.Context(), db, account.Order{Run: "crowd", Count: 20, Devices: 2})
	if err != nil {
		t.Fatal(err)
	}
	mustNotLogIn(t, c.GateClient(), people[0])
	crowd, err := device.NewCrowd(t.Context(), device.CrowdOptions{
		Gate: c.GateClient(), People: people, Conversations: conversations, Seed: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer crowd.Close()

	const rate = 250 // messages a second
	talking, stop := context.WithCancel(t.Context())
	var talk errgroup.Group
	talk.Go(func() error { return crowd.Talk(talking, rate) })
	said := func(n int64) func() bool { return func() bool { return crowd.Counts().Typed >= n } }
	testenv.Until(t, "a second of talk", said(rate))
	c.Chats[0].Stop()
	testenv.Until(t, "another second", said(2*rate))
	c.AddChat()
	testenv.Until(t, "two more", said(4*rate))
	stop()
	if err := talk.Wait(); err != nil {
		t.Fatal(err)
	}
	waiting, cancel := context.WithTimeout(t.Context(), testenv.Patience)
	defer cancel()
	quiet, err := crowd.Quiet(waiting, cluster.Heartbeat)
	if err != nil {
		t.Error(err) // the report says more
	}
	run, err := check.Read(t.Context(), db, crowd.Journals())
	if err != nil {
		t.Fatal(err)
	}
	run.Quiet, run.Heartbeat, run.Minimum = quiet, cluster.Heartbeat, 4*rate
	report := run.Check()
	t.Logf("%+v\n%s", crowd.Counts(), report)
	if err := report.Err(); err != nil {
		t.Error(err)
		keepRun(t, run)
	}
	if report.Complete != 2*len(people) || report.Conversations != len(conversations) || report.Reconnects == 0 {
		t.Errorf("%d devices had to show everything, %d conversations, %d reconnects",
			report.Complete, report.Conversations, report.Reconnects)
	}
	crowd.Close()
	removed, err := account.Remove(t.Context(), db, "crowd")
	if err != nil || removed.Users != int64(len(people)) || removed.Events != int64(report.Logged) {
		t.Errorf("removed %+v (%v)", removed, err)
	}
}

// keepRun leaves a failed run in a folder, for check.Load.
func keepRun(t *testing.T, run *check.Run) {
	t.Helper()
	dir, err := os.MkdirTemp("", "msrchat-run-") //nolint:usetesting // it outlives the test
	if err == nil {
		err = run.Save(dir)
	}
	t.Logf("the run is in %s (%v)", dir, err)
}

// mustNotLogIn tries to log in with a password to an account that was made past
// the gate. Its token is good.
func mustNotLogIn(t *testing.T, g *client.Gate, who account.Account) {
	t.Helper()
	if me, err := g.Me(t.Context(), who.Sessions[0].Token); err != nil || me.User.ID != who.ID {
		t.Errorf("its token belongs to %v (%v)", me.User, err)
	}
	for _, password := range []string{"", "!", "password", "$argon2id$v=19$m=64,t=1,p=1$AAAA$AAAA"} {
		for _, with := range []client.Credentials{{Name: who.Name}, {Email: who.Name + "@bench.invalid"}} {
			with.Password, with.Device = password, "thief"
			reply, err := g.Login(t.Context(), with)
			if code := errs.CodeOf(err); code != errs.CodeUnauthenticated && code != errs.CodeInvalid {
				t.Errorf("password %q: %v (%v)", password, reply.Session.User, err)
			}
		}
	}
}
