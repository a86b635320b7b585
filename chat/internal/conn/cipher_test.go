package conn_test

import (
	"crypto/tls"
	"os"
	"os/exec"
	"regexp"
	"testing"

	"github.com/msrchat/msrchat/chat/internal/conn"
)

// inJob is set in a process with the environment of the job.
const inJob = "MSRCHAT_TEST_IN_JOB"

// With the environment of their job chat servers agree on ChaCha20, whose state is small,
// also with clients that prefer AES.
func TestTheJobsCipherIsSmall(t *testing.T) {
	t.Parallel()
	if os.Getenv(inJob) != "" {
		mine, theirs := secured(t)
		w := newWorld(t, func(_ *world, o *conn.Options) { o.TLS = mine })
		ours, server := tcp(t)
		w.pipes.conns <- server
		secure := tls.Client(ours, theirs)
		if err := secure.HandshakeContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := secure.ConnectionState().CipherSuite; got != tls.TLS_CHACHA20_POLY1305_SHA256 {
			t.Errorf("they agreed on %s", tls.CipherSuiteName(got))
		}
		return
	}
	job, err := os.ReadFile("../../../nomad/chat.nomad.hcl")
	if err != nil {
		t.Fatal(err)
	}
	debug := regexp.MustCompile(`GODEBUG += "([^"]+)"`).FindSubmatch(job)
	if debug == nil {
		t.Fatal("the job sets no GODEBUG")
	}
	again := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
	again.Env = append(os.Environ(), inJob+"=1", "GODEBUG="+string(debug[1]))
	if out, err := again.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
