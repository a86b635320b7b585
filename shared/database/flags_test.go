package database_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/urfave/cli/v2"

	"github.com/msrchat/msrchat/shared/database"
)

// A child process that is given Environ has the same configuration.
func TestFlagsAndEnvironment(t *testing.T) {
	parse := func(args ...string) (cfg database.Config, err error) {
		app := &cli.App{Flags: database.Flags(), Action: func(c *cli.Context) (err error) {
			cfg, err = database.FromCLI(c)
			return err
		}}
		err = app.RunContext(t.Context(), append([]string{"test"}, args...))
		return cfg, err
	}
	t.Setenv("MSRCHAT_MYSQL_PASSWORD", "s3cret")
	want := database.Defaults()
	want.Addr, want.User, want.Name, want.Password = "a:1,b:2", "u", "n", "s3cret"
	want.TLS, want.CAFile, want.ServerName = true, "ca.pem", "db.example.org"
	got, err := parse("--mysql-addr", "a:1,b:2", "--mysql-user", "u", "--mysql-database", "n",
		"--mysql-tls", "--mysql-tls-ca", "ca.pem", "--mysql-tls-server-name", "db.example.org")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("from flags (-want +got):\n%s", diff)
	}
	for _, pair := range database.Environ(want) {
		name, value, _ := strings.Cut(pair, "=")
		t.Setenv(name, value)
	}
	if got, err = parse(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("from the environment (-want +got):\n%s", diff)
	}
	if _, err := parse("--mysql-tls=false"); err == nil || !strings.Contains(err.Error(), "need --mysql-tls") {
		t.Errorf("certificates that are not used: %v", err)
	}
}
