package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/client/internal/plain"
	"github.com/msrchat/msrchat/client/internal/profile"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/text"
)

func passwordFlag() cli.Flag {
	return &cli.BoolFlag{Name: "password-stdin", Usage: "read the password from standard input"}
}

// commands are all commands.
func (p *program) commands() []*cli.Command {
	return append([]*cli.Command{
		{
			Name: "code", Usage: "have a code for registering sent by e-mail", ArgsUsage: "EMAIL", Action: p.code,
		},
		{
			Name: "register", Usage: "make an account and log in",
			Flags: []cli.Flag{
				&cli.StringFlag{Name: "email", Usage: "the `ADDRESS` that the code was sent to"},
				&cli.StringFlag{Name: "name", Usage: "the `NAME` by which others write to you"},
				&cli.StringFlag{Name: "code", Usage: "the `CODE` from the e-mail"},
				passwordFlag(),
			},
			Action: p.register,
		},
		{
			Name: "login", Usage: "log in",
			Flags: []cli.Flag{
				&cli.StringFlag{Name: "name", Usage: "your `NAME`"},
				&cli.StringFlag{Name: "email", Usage: "or your `ADDRESS`"},
				passwordFlag(),
			},
			Action: p.login,
		},
		{Name: "logout", Usage: "end the session and forget it here; messages stay", Action: p.logout},
		{
			Name: "whoami", Usage: "say who is logged in and which chat server serves them",
			Flags: []cli.Flag{timeoutFlag("how long to try to connect")}, Action: p.whoami,
		},
	}, p.chatCommands()...)
}

func (p *program) code(c *cli.Context) error {
	if err := noArgs(c, 1); err != nil {
		return err
	}
	email := c.Args().First()
	if email == "" {
		return usagef("for which address? msrchat code EMAIL")
	}
	g, err := p.anyGate(c)
	if err != nil {
		return err
	}
	if err := g.Code(c.Context, email); err != nil {
		return err
	}
	return p.printer(c).print(map[string]any{"email": email},
		"a code is on its way to %s; then: %s register --email %s --name NAME --code CODE",
		plain.Line(email), p.command(), plain.Line(email))
}

// anyGate is the gate, whether or not somebody is logged in.
func (p *program) anyGate(c *cli.Context) (*client.Gate, error) {
	login, err := p.place(c)
	if err != nil && errs.CodeOf(err) != errs.CodeUnauthenticated {
		return nil, err
	}
	return p.gate(c, login.Gate)
}

func (p *program) register(c *cli.Context) error {
	if err := noArgs(c, 0); err != nil {
		return err
	}
	for _, name := range []string{"email", "name", "code"} {
		if c.String(name) == "" {
			return usagef("--%s is missing; see msrchat register --help", name)
		}
	}
	g, err := p.anyGate(c)
	if err != nil {
		return err
	}
	password, err := p.password(c, true)
	if err != nil {
		return err
	}
	return p.doRegister(c, g, client.Registration{
		Email: c.String("email"), Name: c.String("name"), Code: c.String("code"), Password: password,
	})
}

func (p *program) doRegister(c *cli.Context, g *client.Gate, r client.Registration) (err error) {
	if r.Device, err = p.profile.Device(); err != nil {
		return err
	}
	r.Later = true // the terminal program connects when it starts, a command not at all
	reply, err := g.Register(c.Context, r)
	if err != nil {
		return err
	}
	return p.loggedIn(c, g, reply, true)
}

func (p *program) login(c *cli.Context) error {
	if err := noArgs(c, 0); err != nil {
		return err
	}
	if (c.String("name") == "") == (c.String("email") == "") {
		return usagef("give --name or --email; see msrchat login --help")
	}
	g, err := p.anyGate(c)
	if err != nil {
		return err
	}
	password, err := p.password(c, false)
	if err != nil {
		return err
	}
	return p.doLogin(c, g, client.Credentials{Name: c.String("name"), Email: c.String("email"), Password: password})
}

func (p *program) doLogin(c *cli.Context, g *client.Gate, who client.Credentials) (err error) {
	if who.Device, err = p.profile.Device(); err != nil {
		return err
	}
	who.Later = true
	reply, err := g.Login(c.Context, who)
	if errs.CodeOf(err) == errs.CodeUnauthenticated {
		return &endError{error: err, code: exitRefused}
	}
	if err != nil {
		return err
	}
	return p.loggedIn(c, g, reply, false)
}

// loggedIn keeps a session and says so.
func (p *program) loggedIn(c *cli.Context, g *client.Gate, reply client.LoginReply, registered bool) error {
	s := reply.Session
	if err := p.profile.Save(c.Context, profile.Login{Gate: g.URL(), Session: s}, registered); err != nil {
		return err
	}
	return p.printer(c).print(map[string]any{
		"user": userJSON(s.User), "gate": g.URL(), "profile": p.profile.Name, "expires_at": forPrograms(s.ExpiresAt),
	}, "logged in as %s until %s", plain.Line(s.User.Name), forHumans(s.ExpiresAt))
}

func userJSON(u client.User) map[string]string {
	return map[string]string{"id": decimal(u.ID), "name": u.Name}
}

func (p *program) logout(c *cli.Context) error {
	if err := noArgs(c, 0); err != nil {
		return err
	}
	login, err := p.place(c)
	if errors.Is(err, profile.ErrLoggedOut) {
		return err
	}
	if err != nil {
		// The session of a damaged file cannot be revoked; the file is removed.
		return errors.Join(err, p.profile.Forget())
	}
	g, err := p.gate(c, login.Gate)
	if err != nil {
		return err
	}
	waiting := p.waiting(c, login)
	revoked := g.Logout(c.Context, login.Session.Token)
	if errs.CodeOf(revoked) == errs.CodeUnauthenticated {
		revoked = nil // it had ended already
	}
	if err := p.profile.Forget(); err != nil {
		return err
	}
	if waiting > 0 {
		fmt.Fprintf(p.Stderr, "%d messages wait to be sent; they go out after the next login as %s\n", waiting,
			plain.Line(login.Session.User.Name))
	}
	if revoked != nil {
		return &endError{error: revoked, hint: "the session is forgotten here; at the service it expires on " +
			forHumans(login.Session.ExpiresAt)}
	}
	return p.printer(c).print(map[string]any{"user": userJSON(login.Session.User), "waiting": waiting},
		"logged out %s", plain.Line(login.Session.User.Name))
}

// waiting counts the messages that are queued; 0 if the store cannot be read.
func (p *program) waiting(c *cli.Context, login profile.Login) int {
	s, err := p.profile.Store(c.Context, login)
	if err != nil {
		return 0
	}
	defer s.Close()
	unsent, err := s.Unsent(c.Context)
	if err != nil {
		return 0
	}
	n := 0
	for _, o := range unsent {
		if o.State == client.Queued {
			n++
		}
	}
	return n
}

type serverJSON struct {
	Instance  string `json:"instance"`
	Address   string `json:"address"`
	Release   string `json:"release,omitempty"`
	Connected bool   `json:"connected"`
}

func (p *program) whoami(c *cli.Context) error {
	if err := noArgs(c, 0); err != nil {
		return err
	}
	o, err := p.open(c.Context, c, logToStderr, sendOnly)
	if err != nil {
		return err
	}
	defer o.close()
	go drain(o.Client)
	ctx, cancel := within(c, c.Duration("timeout"))
	defer cancel()
	me, err := o.gate.Me(ctx, o.login.Session.Token)
	if errs.CodeOf(err) == errs.CodeUnauthenticated {
		return err
	}
	if err != nil { // without gate: what is known here
		me = client.Me{User: o.login.Session.User, ExpiresAt: o.login.Session.ExpiresAt}
	}
	link, linkErr := o.WaitOnline(ctx)
	server := serverJSON{
		Instance: link.Instance, Address: link.Address, Release: link.Release,
		Connected: linkErr == nil,
	}
	where := fmt.Sprintf("on chat server %s (%s, release %s)", plain.Line(server.Instance), plain.Line(server.Address),
		plain.Line(server.Release))
	if linkErr != nil {
		// Not connected, but perhaps assigned.
		where = "not connected"
		if a, err := o.gate.Assign(ctx, o.login.Session.Token, nil); err == nil {
			server = serverJSON{Instance: a.Server.Instance, Address: a.Server.Address}
			where = fmt.Sprintf("not connected; assigned to chat server %s (%s)", plain.Line(server.Instance),
				plain.Line(server.Address))
		}
	}
	err = p.printer(c).print(map[string]any{
		"user":    map[string]string{"id": decimal(me.User.ID), "name": me.User.Name, "email": me.Email},
		"profile": p.profile.Name, "gate": o.gate.URL(), "expires_at": forPrograms(me.ExpiresAt),
		"server": server, "waiting": p.queued(c, o),
	}, "%s (id %d), session until %s\n%s", plain.Line(me.User.Name), me.User.ID, forHumans(me.ExpiresAt), where)
	return errors.Join(linkErr, err)
}

func (p *program) queued(c *cli.Context, o *online) int {
	n := 0
	if unsent, err := o.Unsent(c.Context); err == nil {
		for _, out := range unsent {
			if out.State == client.Queued {
				n++
			}
		}
	}
	return n
}

func (p *program) printer(c *cli.Context) printer { return printer{p.Stdout, given(c, "json")} }

// password asks for a password, twice for a new one, or reads it.
func (p *program) password(c *cli.Context, isNew bool) (string, error) {
	if c.Bool("password-stdin") {
		line, err := bufio.NewReader(io.LimitReader(p.Stdin, 2*text.MaxPassword)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return "", fmt.Errorf("read password: %w", err)
		}
		line = strings.TrimRight(line, "\r\n")
		if line == "" {
			return "", usagef("standard input has no password")
		}
		return line, nil
	}
	if !p.Interactive {
		return "", usagef("there is no terminal to ask for the password; use --password-stdin")
	}
	return p.askPassword(c.Context, isNew)
}

func (p *program) askPassword(ctx context.Context, isNew bool) (string, error) {
	first, err := p.hidden(ctx, "password: ")
	if err != nil || !isNew {
		return first, err
	}
	if err := text.Password(first); err != nil {
		return "", err
	}
	second, err := p.hidden(ctx, "password again: ")
	if err != nil {
		return "", err
	}
	if first != second {
		return "", errs.New(errs.CodeInvalid, "the two passwords differ")
	}
	return first, nil
}

func (p *program) hidden(ctx context.Context, prompt string) (string, error) {
	fmt.Fprint(p.Stderr, prompt)
	line, err := p.ReadPassword(ctx)
	fmt.Fprintln(p.Stderr)
	if err != nil {
		return "", fmt.Errorf("read password: %w", err)
	}
	return line, nil
}
