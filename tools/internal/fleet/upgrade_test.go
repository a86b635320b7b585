package fleet_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/msrchat/msrchat/tools/internal/fleet"
	"github.com/msrchat/msrchat/tools/state"
)

func TestUpgradeRefuses(t *testing.T) {
	for _, test := range []struct {
		name, service, manager string
		is                     error
		says                   string
	}{
		{"a service that does not exist", "chats", state.ByUp, fleet.ErrNoService, `there is no service "chats"`},
		{"a program of the system", "mysql", state.ByUp, fleet.ErrNoService, "nomad job restart mysql"},
		{"a batch job", "migrate", state.ByUp, fleet.ErrNoService, "chat, gate, status"},
		{"Terraform's fleet", "chat", state.ByTerraform, nil, "./justw apply local"},
		{"no fleet", "chat", "", fleet.ErrDown, "./justw up"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := openState(t)
			if test.manager != "" {
				if err := dir.Claim(test.manager); err != nil {
					t.Fatal(err)
				}
			}
			f := open(t, dir, freeBase(t), &bytes.Buffer{})
			err := f.Upgrade(t.Context(), fleet.Upgrade{Service: test.service, Limit: time.Minute})
			if err == nil || !strings.Contains(err.Error(), test.says) || test.is != nil && !errors.Is(err, test.is) {
				t.Errorf("got %v, want one that says %q", err, test.says)
			}
		})
	}
}
