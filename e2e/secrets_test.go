package e2e_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/msrchat/msrchat/shared/testenv"

	"github.com/msrchat/msrchat/e2e/fleet"
)

// The databases' passwords get characters that mean something in SQL, in Redis's
// configuration, in environment files and in templates; everything is started again,
// and somebody registers. The second time the passwords end with a newline, as those
// that were read from a file do.
func TestAnyTextIsASecret(t *testing.T) {
	f := fleet.Up(t)
	const password = " a#b $c \"d\" it's x\\y\\\\z\nw {{ v }} ${u} <é> "
	for _, step := range []struct{ name, written string }{
		{"cyd", password},
		{"dan", password + "\n"},
	} {
		setSecrets(t, f, step.written)
		for _, service := range []string{"mysql", "redis", "chat", "gate"} {
			restart := []string{"job", "restart", "-yes", "-reschedule", service}
			if out, err := f.NomadCLI(t.Context(), restart...); err != nil {
				t.Fatalf("restart %s: %v\n%s", service, err, out)
			}
		}
		f.Just("up") // waits for the checks; that of Redis logs in
		rdb := redis.NewClient(&redis.Options{Addr: f.Address(7721), Password: password})
		if err := rdb.Ping(t.Context()).Err(); err != nil {
			t.Errorf("Redis does not take the password: %v", err)
		}
		_ = rdb.Close()
		f.Register(step.name)
	}
	files := f.Secrets()
	for _, file := range files {
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v; want it to be its owner's alone", file, info, err)
		}
	}
	if len(files) < 3 { // of the gate and two chat servers
		t.Errorf("%d files with secrets were found", len(files))
	}
}

// setSecrets writes one text as every secret to the Nomad variable of the jobs.
func setSecrets(t *testing.T, f *fleet.Fleet, password string) {
	t.Helper()
	out, err := f.NomadCLI(t.Context(), "var", "get", "-out=json", "nomad/jobs")
	if err != nil {
		t.Fatalf("read the variable: %v\n%s", err, out)
	}
	var variable map[string]any
	if err := json.Unmarshal([]byte(out), &variable); err != nil {
		t.Fatal(err)
	}
	items, _ := variable["Items"].(map[string]any)
	for _, secret := range []string{"mysql_password", "redis_password", "code_secret", "smtp_password"} {
		items[secret] = password
	}
	text, err := json.Marshal(variable)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "variable.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := f.NomadCLI(t.Context(), "var", "put", "-force", "-in=json", "@"+file); err != nil {
		t.Fatalf("write the variable: %v\n%s", err, out)
	}
	testenv.Until(t, "a chat server and a gate", func() bool {
		return len(f.Passing("chat")) > 0 && len(f.Passing("gate")) > 0
	})
}
