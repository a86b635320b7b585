package cluster

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/client/store"
	statusv1 "github.com/msrchat/msrchat/proto/msrchat/status/v1"
	"github.com/msrchat/msrchat/shared/testenv"
)

// Fleet asks a status server what it knows.
func Fleet(t testing.TB, address string) *statusv1.FleetResponse {
	t.Helper()
	cc, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	fleet, err := statusv1.NewStatusServiceClient(cc).Fleet(ctx, &statusv1.FleetRequest{})
	if err != nil {
		t.Logf("fleet: %v", err)
		return &statusv1.FleetResponse{}
	}
	return fleet
}

// Settle waits until every status server may assign every chat server, and the
// gate answers.
func (c *Cluster) Settle() {
	c.t.Helper()
	for _, s := range c.Status {
		testenv.Until(c.t, "every chat server is eligible at "+s.Name, func() bool {
			n := 0
			for _, server := range Fleet(c.t, s.Server.GRPCAddr()).GetServers() {
				if server.GetEligible() && server.GetLoad() != nil {
					n++
				}
			}
			return n >= len(c.Chats)
		})
	}
	testenv.Until(c.t, "the gate is ready", func() bool {
		req, err := http.NewRequestWithContext(c.t.Context(), http.MethodGet, c.GateURL()+"/readyz", nil)
		if err != nil {
			c.t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

// GateClient is a client of the gate.
func (c *Cluster) GateClient() *client.Gate {
	c.t.Helper()
	g, err := client.NewGate(c.GateURL(), nil)
	if err != nil {
		c.t.Fatal(err)
	}
	return g
}

// Person is somebody with an account and a session.
type Person struct {
	Name, Email, Password string
	Session               client.Session
	// assignment came with the registration; the first client uses it.
	assignment *client.Assignment
	cluster    *Cluster
}

var code = regexp.MustCompile(`\b\d{6}\b`)

// Register makes an account as people do: by a code from a mail.
func (c *Cluster) Register(name string) *Person {
	c.t.Helper()
	g := c.GateClient()
	p := &Person{Name: name, Email: fmt.Sprintf("%s@example.org", name), Password: "correct horse " + name, cluster: c}
	if err := g.Code(c.t.Context(), p.Email); err != nil {
		c.t.Fatalf("code for %s: %v", name, err)
	}
	var digits string
	testenv.Until(c.t, "the mail with the code", func() bool {
		mail, ok := c.Mail.Newest(p.Email)
		digits = code.FindString(mail.Text)
		return ok && digits != ""
	})
	reply, err := g.Register(c.t.Context(), client.Registration{
		Email: p.Email, Name: name, Password: p.Password, Code: digits, Device: "test",
	})
	if err != nil {
		c.t.Fatalf("register %s: %v", name, err)
	}
	p.Session, p.assignment = reply.Session, reply.Assignment
	return p
}

// keep is how many messages of a conversation a test's client remembers.
const keep = 1000

// Connect opens a client with an empty store; it closes with the test.
func (p *Person) Connect(change ...func(*client.Options)) *client.Client {
	p.cluster.t.Helper()
	opt := client.Options{
		Gate: p.cluster.GateClient(), Session: p.Session, Assignment: p.assignment,
		Store: store.NewMemory(keep), Program: "e2e",
		FirstPage: keep, // the checks want every message from the first on
	}
	p.assignment = nil
	for _, c := range change {
		c(&opt)
	}
	cl, err := client.Open(context.Background(), opt)
	if err != nil {
		p.cluster.t.Fatal(err)
	}
	p.cluster.t.Cleanup(cl.Close)
	return cl
}
