package database_test

import (
	"testing"

	"github.com/msrchat/msrchat/shared/backend"
	"github.com/msrchat/msrchat/shared/testenv"

	"github.com/msrchat/msrchat/shared/database"
)

func TestTLS(t *testing.T) {
	t.Parallel()
	cert, key, ca := testenv.Certificate(t, "mysql.example.org")
	_, _, otherCA := testenv.Certificate(t, "mysql.example.org")
	s := testenv.StartMariaDB(t)
	s.Kill()
	s.Args = append(s.Args, "--ssl-cert="+cert, "--ssl-key="+key)
	s.Start(t)
	for _, tc := range []struct {
		name     string
		ca, host string
		good     bool
	}{
		{"verified", ca, "mysql.example.org", true},
		{"another authority", otherCA, "mysql.example.org", false},
		{"another name", ca, "mysql.example.com", false},
		{"the address, which is not in it", ca, "", false},
		{"the system's authorities", "", "mysql.example.org", false},
	} {
		cfg := backend.RootConfig(s.Addr, "mysql")
		cfg.TLS, cfg.CAFile, cfg.ServerName = true, tc.ca, tc.host
		db, err := database.Open(t.Context(), cfg)
		if (err == nil) != tc.good {
			t.Errorf("%s: %v", tc.name, err)
		}
		if err != nil {
			continue
		}
		var name, cipher string
		err = db.QueryRowContext(t.Context(), "SHOW STATUS LIKE 'Ssl_cipher'").Scan(&name, &cipher)
		if err != nil || cipher == "" {
			t.Errorf("%s: the connection is not encrypted (%v)", tc.name, err)
		}
		_ = db.Close()
	}
	cfg := backend.RootConfig(s.Addr, "mysql")
	cfg.CAFile = ca
	if cfg.Validate() == nil {
		t.Error("certificates are named and not used")
	}
}
