package fleet_test

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/msrchat/msrchat/tools/process"
	"github.com/msrchat/msrchat/tools/state"
)

func TestVarsIsRefusedWhileUpManages(t *testing.T) {
	dir := openState(t)
	if err := dir.Claim(state.ByUp); err != nil {
		t.Fatal(err)
	}
	err := open(t, dir, freeBase(t), &bytes.Buffer{}).Vars(t.Context())
	if err == nil || !strings.Contains(err.Error(), "./justw down") {
		t.Errorf("got %v, want how to take the fleet down", err)
	}
	if _, err := os.Stat(filepath.Join(dir.Path(), "terraform.tfvars.json")); !os.IsNotExist(err) {
		t.Errorf("variables were written: %v", err)
	}
}

// Terraform gets what Nomad holds. Nothing is not an error, because a first apply
// finds nothing.
func TestSecretsAreThoseThatNomadHolds(t *testing.T) {
	tests := map[string]struct {
		status     int
		body, want string
	}{
		"some": {
			http.StatusOK, `{"Path":"nomad/jobs","Items":{"mysql_password":"p","redis_password":"r"}}`,
			`{"mysql_password":"p","redis_password":"r"}`,
		},
		"none": {http.StatusNotFound, "variable not found", `{}`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			base := freeBase(t)
			fakeNomad(t, base, test.status, test.body)
			var out bytes.Buffer
			dir := openState(t)
			if err := open(t, dir, base, &out).Secrets(t.Context()); err == nil || out.Len() > 0 {
				t.Errorf("those of another fleet's Nomad: %v\n%s", err, &out)
			}
			self, _ := process.Find(os.Getpid())
			if err := os.MkdirAll(dir.Run(), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := process.Record(filepath.Join(dir.Run(), "nomad.pid"), self); err != nil {
				t.Fatal(err)
			}
			if err := open(t, dir, base, &out).Secrets(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := strings.TrimSpace(out.String()); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
	t.Run("no nomad", func(t *testing.T) {
		if err := open(t, openState(t), freeBase(t), &bytes.Buffer{}).Secrets(t.Context()); err == nil {
			t.Error("no error: Terraform would make new secrets")
		}
	})
}

// fakeNomad answers for the jobs' variable at the address of a fleet's Nomad.
func fakeNomad(t *testing.T, base, status int, body string) {
	t.Helper()
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", base+10))
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/var/nomad/jobs", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	})
	server := httptest.NewUnstartedServer(mux)
	_ = server.Listener.Close()
	server.Listener = listener
	server.Start()
	t.Cleanup(server.Close)
}
