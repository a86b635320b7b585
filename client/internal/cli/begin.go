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
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/text"
)

// begin asks a newcomer at a terminal to log in or register. What is refused is
// asked again; Ctrl-D ends it.
func (p *program) begin(c *cli.Context) error {
	g, err := p.anyGate(c)
	if err != nil {
		return err
	}
	ask := &questions{program: p, in: bufio.NewReader(p.Stdin)}
	fmt.Fprintf(p.Stderr, "msrChat at %s. Nobody is logged in here.\n", g.URL())
	for {
		choice, err := ask.line(c.Context, "log in (l) or register (r)? ")
		if err != nil {
			return err
		}
		switch strings.ToLower(choice) {
		case "l", "login", "log in":
			return ask.again(func() error { return ask.logIn(c, g) })
		case "r", "register":
			return ask.again(func() error { return ask.register(c, g) })
		}
	}
}

// questions asks on standard error and reads the answers.
type questions struct {
	*program
	in     *bufio.Reader
	mailed string // where a code was sent
}

// line asks one question. Ctrl-C ends the wait; the goroutine that reads standard
// input is abandoned, as the program ends.
func (q *questions) line(ctx context.Context, prompt string) (string, error) {
	fmt.Fprint(q.Stderr, prompt)
	type reply struct {
		line string
		err  error
	}
	got := make(chan reply, 1)
	go func() {
		line, err := q.in.ReadString('\n')
		got <- reply{line, err}
	}()
	var answer string
	var err error
	select {
	case r := <-got:
		answer, err = r.line, r.err
	case <-ctx.Done():
		fmt.Fprintln(q.Stderr)
		return "", ctx.Err()
	}
	if errors.Is(err, io.EOF) {
		fmt.Fprintln(q.Stderr)
		return "", &endError{error: errs.New(errs.CodeUnauthenticated, "nobody is logged in"), hint: " "}
	}
	if err != nil {
		return "", fmt.Errorf("read answer: %w", err)
	}
	return strings.TrimSpace(answer), nil
}

// again repeats what was refused because of the answers.
func (q *questions) again(try func() error) error {
	for {
		err := try()
		var end *endError
		refused := errors.As(err, &end) && end.code == exitRefused
		switch errs.CodeOf(err) {
		case errs.CodeInvalid, errs.CodeConflict, errs.CodeTooLarge, errs.CodeRateLimited:
			refused = true
		}
		if !refused {
			return err
		}
		fmt.Fprintln(q.Stderr, plain.Line(client.Describe(err)))
	}
}

func (q *questions) logIn(c *cli.Context, g *client.Gate) error {
	name, err := q.line(c.Context, "name or e-mail address: ")
	if err != nil {
		return err
	}
	password, err := q.askPassword(c.Context, false)
	if err != nil {
		return err
	}
	who := client.Credentials{Name: name, Password: password}
	if strings.Contains(name, "@") {
		who = client.Credentials{Email: name, Password: password}
	}
	return q.doLogin(c, g, who)
}

func (q *questions) register(c *cli.Context, g *client.Gate) error {
	if q.mailed == "" {
		email, err := q.line(c.Context, "e-mail address: ")
		if err != nil {
			return err
		}
		if err := g.Code(c.Context, email); err != nil {
			return err
		}
		q.mailed = email
		fmt.Fprintf(q.Stderr, "a code is on its way to %s\n", plain.Line(email))
	}
	code, err := q.line(c.Context, "code from the e-mail (empty to send another): ")
	if err != nil {
		return err
	}
	if code == "" {
		q.mailed = ""
		return errs.New(errs.CodeInvalid, "then another code is sent")
	}
	name, err := q.line(c.Context, "the name by which others write to you: ")
	if err != nil {
		return err
	}
	if name, _, err = text.Name(name); err != nil {
		return err
	}
	password, err := q.askPassword(c.Context, true)
	if err != nil {
		return err
	}
	return q.doRegister(c, g, client.Registration{Email: q.mailed, Name: name, Code: code, Password: password})
}
