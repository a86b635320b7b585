package cache_test

import (
	"net"
	"strconv"
	"testing"

	"github.com/msrchat/msrchat/shared/cache"
	"github.com/msrchat/msrchat/shared/testenv"
)

func TestTLS(t *testing.T) {
	cert, key, ca := testenv.Certificate(t, "redis.example.org")
	_, _, otherCA := testenv.Certificate(t, "redis.example.org")
	s := testenv.StartRedis(t)
	s.Kill()
	port := strconv.Itoa(testenv.FreePort(t))
	s.Args = append(s.Args, "--tls-port", port, "--tls-cert-file", cert, "--tls-key-file", key,
		"--tls-ca-cert-file", ca, "--tls-auth-clients", "no")
	s.Start(t)
	for _, tc := range []struct {
		name     string
		ca, host string
		good     bool
	}{
		{"verified", ca, "redis.example.org", true},
		{"another authority", otherCA, "redis.example.org", false},
		{"another name", ca, "redis.example.com", false},
		{"the address, which is not in it", ca, "", false},
		{"the system's authorities", "", "redis.example.org", false},
	} {
		client := open(t, cache.Config{
			Addrs: []string{net.JoinHostPort("127.0.0.1", port)}, TLS: true, CAFile: tc.ca, ServerName: tc.host,
		})
		if err := client.Ping(t.Context()).Err(); (err == nil) != tc.good {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
	if _, err := cache.Open(cache.Config{Addrs: []string{"a:1"}, TLS: true, CAFile: cert + "x"}); err == nil {
		t.Error("certificates that are not there")
	}
	if _, err := cache.Open(cache.Config{Addrs: []string{"a:1"}, CAFile: ca}); err == nil {
		t.Error("certificates are named and not used")
	}
}

// Two systems on one Redis begin their keys with different texts.
func TestPrefix(t *testing.T) {
	for prefix, want := range map[string]string{"": "msrchat:", "msrchat:": "msrchat:", "two:": "two:"} {
		client := open(t, cache.Config{Addrs: []string{"127.0.0.1:1"}, Prefix: prefix})
		if got := cache.Prefix(client); got != want {
			t.Errorf("with %q the keys begin with %q", prefix, got)
		}
	}
}
