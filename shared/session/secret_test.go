package session_test

import (
	"testing"
	"time"

	"github.com/msrchat/msrchat/shared/session"
	"github.com/msrchat/msrchat/shared/testenv"
)

// All services derive the same secret for a purpose, and another for another.
func TestDerive(t *testing.T) {
	t.Parallel()
	db := testenv.Open(t, testenv.MariaDB(t))
	derive := func(purpose string) [32]byte {
		t.Helper()
		b, err := session.NewStore(db, nil).Derive(t.Context(), purpose)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if derive("a") != derive("a") || derive("a") == derive("b") || derive("a") == [32]byte{} {
		t.Error("two services derive other secrets, or two purposes the same one")
	}
}

// A network is known for as long as a session may last after a log-in from it, also when
// the session has ended; and nobody can read in the table what it was.
func TestKnownNetworks(t *testing.T) {
	t.Parallel()
	db := testenv.Open(t, testenv.MariaDB(t))
	user, other := addUser(t, db, "ann"), addUser(t, db, "ben")
	clock := newClock()
	s := session.NewStore(db, nil, session.WithClock(clock.now), session.WithLifetime(time.Hour))
	known := func(user uint64, network string) bool {
		t.Helper()
		ok, err := s.Known(t.Context(), user, network)
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	if known(user, "192.0.2.1") {
		t.Error("known before the first log-in")
	}
	_, made, err := s.Create(t.Context(), user, "laptop", "192.0.2.1")
	if err != nil {
		t.Fatal(err)
	}
	create(t, s, user, "phone") // from an unknown network
	if err := s.Revoke(t.Context(), made.ID); err != nil {
		t.Fatal(err)
	}
	switch {
	case !known(user, "192.0.2.1"):
		t.Error("not known after a log-in")
	case known(user, "192.0.2.2"), known(other, "192.0.2.1"), known(user, ""), known(0, "192.0.2.1"):
		t.Error("known without a log-in")
	}
	var stored []byte
	err = db.QueryRowContext(t.Context(), "SELECT network FROM sessions WHERE id = ?", made.ID).Scan(&stored)
	if err != nil || len(stored) != 8 {
		t.Errorf("stored %x, %v; want eight bytes", stored, err)
	}
	clock.move(time.Hour)
	if known(user, "192.0.2.1") {
		t.Error("known for ever")
	}
}
