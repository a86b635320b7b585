package chat_test

import (
	"context"
	"crypto/tls"
	"testing"
	"time"

	"github.com/msrchat/msrchat/chat"
	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/certificate/certtest"
	"github.com/msrchat/msrchat/shared/testenv"
	protocol "github.com/msrchat/msrchat/shared/wire"
)

const tlsName = "chat.example.org"

// Over TLS people chat as without. A session that began at one server is resumed at
// another, and a replaced certificate is served while connections stay.
func TestTLS(t *testing.T) {
	t.Parallel()
	f := newFleet(t, false)
	ca := certtest.New(t)
	files := ca.Files(tlsName)
	secured := func(c *chat.Config) { c.TLSServerName, c.Certificate = tlsName, files }
	a, b := f.start("a", secured), f.start("b", secured)
	linked(t, a, b)
	ann := f.person()
	dialer := &protocol.Dialer{TLS: &tls.Config{RootCAs: ca.Roots}}
	login := func(s *running) (*protocol.Conn, *chatv1.Welcome, error) {
		ctx, cancel := context.WithTimeout(t.Context(), testenv.Patience)
		defer cancel()
		to := &chatv1.Endpoint{Address: s.ClientAddr(), TlsServerName: tlsName}
		return dialer.Dial(ctx, to, protocol.Login{Token: ann.token})
	}
	conn, w, err := login(a)
	if err != nil || w.GetUserName() != ann.name {
		t.Fatalf("log-in over TLS: %v, %v", w, err)
	}
	t.Cleanup(conn.Close)

	cache := tls.NewLRUClientSessionCache(8)
	handshake := func(s *running) tls.ConnectionState {
		t.Helper()
		nc, err := tls.Dial("tcp", s.ClientAddr(), &tls.Config{
			RootCAs: ca.Roots, ServerName: tlsName, ClientSessionCache: cache, MinVersion: tls.VersionTLS13,
		})
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		// The ticket comes behind the handshake, and is read with what follows.
		_ = nc.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		_, _ = nc.Read(make([]byte, 1))
		return nc.ConnectionState()
	}
	testenv.Until(t, "a session is resumed at another server", func() bool {
		handshake(a)
		return handshake(b).DidResume
	})

	before := handshake(a).PeerCertificates[0]
	ca.Files(tlsName)
	testenv.Until(t, "the new certificate is served", func() bool {
		cache = tls.NewLRUClientSessionCache(8)
		return !handshake(a).PeerCertificates[0].Equal(before)
	})
	ping := &chatv1.ClientFrame{RequestId: 7, Body: &chatv1.ClientFrame_Ping{Ping: &chatv1.Ping{}}}
	if answer, err := conn.Call(t.Context(), ping); err != nil || answer.GetPong() == nil {
		t.Errorf("a connection under the old certificate: %v, %v", answer, err)
	}
}
