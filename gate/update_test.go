package gate_test

import (
	"bytes"
	"net/http"
	"testing"
	"time"

	"github.com/msrchat/msrchat/gate"
	"github.com/msrchat/msrchat/shared/testenv"
	"github.com/msrchat/msrchat/shared/text"
)

// An account that a gate of the release before made beside this one gets what this
// release derives from its name.
func TestAccountsOfAnOlderGateAreUpdated(t *testing.T) {
	h := prepare(t, func(c *gate.Config) { c.UpdateAfter = 100 * time.Millisecond })
	db := testenv.Open(t, h.cfg.MySQL)
	const insert = "INSERT INTO users (name, name_key, email, email_key, password_hash, created_at)" +
		" VALUES ('ann', 'ann', 'ann@example.org', 'ann@example.org', '', 1)"
	if _, err := db.ExecContext(t.Context(), insert); err != nil {
		t.Fatal(err)
	}
	h.start()
	want := text.Look("ann")
	h.eventually("the account has its look", func() bool {
		var look []byte
		row := db.QueryRowContext(t.Context(), "SELECT name_look FROM users WHERE name_key = 'ann'")
		return row.Scan(&look) == nil && bytes.Equal(look, want[:])
	})
	if r := h.get("/readyz"); r.status != http.StatusOK {
		t.Errorf("after the update: %d %s", r.status, r.body)
	}
}
