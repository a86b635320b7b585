package cli

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/client/internal/plain"
	"github.com/msrchat/msrchat/client/store"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/text"
)

func (p *program) tail(c *cli.Context) error {
	if err := noArgs(c, 0); err != nil {
		return err
	}
	with := ""
	if name := c.String("with"); name != "" {
		var err error
		if _, with, err = text.FindName(name); err != nil {
			return err
		}
	}
	o, err := p.open(c.Context, c, logToStderr, func(opt *client.Options) { opt.FromNow = c.Bool("from-now") })
	if err != nil {
		return err
	}
	defer o.close()
	status := statusLine{program: p}
	printed := 0
	for e := range o.Events() {
		switch e := e.(type) {
		case client.LinkChanged:
			status.show(e.Link)
			if e.Link.State == client.LoggedOut || e.Link.State == client.Stopped {
				return e.Link.Cause
			}
		case client.Reset:
			fmt.Fprintln(p.Stderr, "msrchat: the servers were restored to an earlier state; see msrchat history")
		case client.Received:
			if with != "" && store.PeerKey(e.Peer.Name) != with {
				continue
			}
			if err := p.printer(c).message(o.login.Session.User, e.Peer, e.Message); err != nil {
				return err
			}
			if printed++; printed == c.Int("count") {
				return nil
			}
		}
	}
	return nil // Ctrl-C is the normal end
}

// statusLine says when a connection comes or goes, and nothing in between.
type statusLine struct {
	*program
	last client.LinkState
}

func (s *statusLine) show(l client.Link) {
	if l.State == client.Connecting || l.State == s.last && l.State != client.Online {
		return
	}
	s.last = l.State
	switch l.State {
	case client.Online:
		fmt.Fprintf(s.Stderr, "msrchat: connected to %s (%s)\n", plain.Line(l.Instance), plain.Line(l.Address))
	case client.Offline:
		fmt.Fprintf(s.Stderr, "msrchat: offline: %s; trying again\n", plain.Line(client.Describe(l.Cause)))
	}
}

// screen opens the terminal UI; a newcomer is asked who they are first.
func (p *program) screen(c *cli.Context) error {
	if !p.Interactive || !p.Terminal {
		return usagef("the chat screen needs a terminal; for scripts see msrchat --help")
	}
	if given(c, "json") {
		return usagef("--json goes with a command; see msrchat --help")
	}
	_, err := p.place(c)
	if errs.CodeOf(err) == errs.CodeUnauthenticated {
		err = p.begin(c)
	}
	if err != nil {
		return err
	}
	// The screen ends by itself when c.Context does; its client ends after it.
	o, err := p.open(context.WithoutCancel(c.Context), c, logToFile, func(*client.Options) {})
	if err != nil {
		return err
	}
	defer o.close()
	return p.Screen(c.Context, o.Client, o.store, o.log)
}
