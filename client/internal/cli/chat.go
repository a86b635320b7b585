package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/client/internal/plain"
	"github.com/msrchat/msrchat/client/store"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/text"
)

func (p *program) chatCommands() []*cli.Command {
	return []*cli.Command{
		{
			Name: "send", Usage: "send a message and print its sequence number once it is acknowledged",
			ArgsUsage: "[TEXT]",
			Description: "Without TEXT, or with - for it, the text is read from standard input. A TEXT\n" +
				"that begins with - goes behind --. Messages of one profile arrive in the order in\n" +
				"which they were accepted. What is above your own message counts as read.",
			Flags: []cli.Flag{
				&cli.StringFlag{Name: "to", Usage: "the `NAME` of whom it is for"},
				&cli.BoolFlag{Name: "lines", Usage: "send each line of standard input as a message"},
				timeoutFlag("how long to wait for the acknowledgement; the message is kept"),
			},
			Action: p.send,
		},
		{
			Name: "tail", Usage: "print messages as they come, until Ctrl-C",
			Description: "It begins with what this profile has not received yet, and goes on through lost\n" +
				"connections. Own messages are printed too. A status line goes to standard error\n" +
				"when the connection comes or goes.",
			Flags: []cli.Flag{
				&cli.StringFlag{Name: "with", Usage: "only the conversation with `NAME`"},
				&cli.BoolFlag{Name: "from-now", Usage: "leave out what came before"},
				&cli.IntFlag{Name: "count", Usage: "end after `N` messages"},
			},
			Action: p.tail,
		},
		{
			Name: "history", Usage: "print a conversation, one message per line",
			Description: "All of it by default; with --limit alone its last N messages, with --after the\n" +
				"first ones after SEQ. Sequence numbers have no gaps: 1 to the last is everything.",
			Flags: []cli.Flag{
				&cli.StringFlag{Name: "with", Usage: "the `NAME` of the other person"},
				&cli.Uint64Flag{Name: "after", Usage: "only messages after number `SEQ`"},
				&cli.Uint64Flag{Name: "limit", Usage: "at most `N` messages"},
				timeoutFlag("how long to wait for each answer"),
			},
			Action: p.history,
		},
		{
			Name: "chats", Usage: "list your conversations",
			Flags: []cli.Flag{timeoutFlag("how long to wait for each answer")}, Action: p.chats,
		},
		{
			Name: "outbox", Usage: "list messages that wait to be sent or were refused", Action: p.outbox,
			Flags: []cli.Flag{&cli.BoolFlag{Name: "discard", Usage: "forget those that were refused"}},
		},
	}
}

// kept is the hint for a message that was accepted and not acknowledged.
const kept = "the message is kept and will be sent by the next msrchat of this profile that has a connection; " +
	"do not send it again"

func (p *program) send(c *cli.Context) error {
	if c.String("to") == "" {
		return usagef("--to is missing; see msrchat send --help")
	}
	message, fromStdin, err := sendText(c)
	if err != nil {
		return err
	}
	if fromStdin && !c.Bool("lines") {
		if message, err = p.stdinText(); err != nil {
			return err
		}
	}
	o, err := p.open(c.Context, c, logToStderr, sendOnly)
	if err != nil {
		return err
	}
	defer o.close()
	go drain(o.Client)
	in := o.In(o.Epoch())
	to, err := o.Contact(c.Context, c.String("to"))
	if err != nil {
		return err
	}
	if c.Bool("lines") {
		return p.sendLines(c, o, in, to)
	}
	out, err := in.Send(c.Context, to.ID, message)
	if err != nil {
		return err
	}
	if err := p.acknowledge(c, o, to.Peer.Name, out); err != nil {
		return err
	}
	o.untilRead(c.Context, to.ID)
	return nil
}

const (
	// readTime bounds the wait for the server to take the read mark. It is a round
	// trip; what takes longer is left to the next msrchat of the profile.
	readTime = 500 * time.Millisecond
	readPoll = 5 * time.Millisecond
)

// untilRead waits until the server has the read mark that a message raised.
func (o *online) untilRead(ctx context.Context, conversation uint64) {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	poll := time.NewTicker(readPoll)
	defer poll.Stop()
	for {
		c, _, err := o.store.Conversation(ctx, conversation)
		if err != nil || c.Own.Read <= c.Own.ServerRead {
			return
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return
		}
	}
}

// sendText puts the TEXT together; a shell splits what is not quoted.
func sendText(c *cli.Context) (message string, fromStdin bool, err error) {
	args := c.Args().Slice()
	if c.Bool("lines") {
		return "", true, noArgs(c, 0)
	}
	if len(args) == 0 || len(args) == 1 && args[0] == "-" {
		return "", true, nil
	}
	for _, arg := range args[1:] {
		name, _, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if strings.HasPrefix(arg, "--") && isFlag(c, name) {
			return "", false, usagef("%s goes before the text; if it is part of the text, quote the whole text", arg)
		}
	}
	return strings.Join(args, " "), false, nil
}

func isFlag(c *cli.Context, name string) bool {
	for _, f := range c.Command.Flags {
		for _, n := range f.Names() {
			if n == name {
				return true
			}
		}
	}
	return false
}

// stdinText reads a whole message, without the line break at its end.
func (p *program) stdinText() (string, error) {
	raw, err := io.ReadAll(io.LimitReader(p.Stdin, text.MaxMessageBytes+3))
	if err != nil {
		return "", fmt.Errorf("read standard input: %w", err)
	}
	return strings.TrimSuffix(strings.ReplaceAll(string(raw), "\r\n", "\n"), "\n"), nil
}

type sentJSON struct {
	To           string `json:"to"`
	Conversation string `json:"conversation"`
	Seq          uint64 `json:"seq"`
	ID           string `json:"id"`
	At           string `json:"at"`
	Existing     bool   `json:"existing"`
}

// acknowledge waits for a message's outcome and prints it.
func (p *program) acknowledge(c *cli.Context, o *online, to string, out client.Outgoing) error {
	ctx, cancel := within(c, c.Duration("timeout"))
	defer cancel()
	got, err := o.Wait(ctx, out.ID)
	switch {
	case err == nil:
		return p.printer(c).print(sentJSON{
			To: to, Conversation: decimal(got.Conversation), Seq: got.Seq, ID: got.ID.String(),
			At: forPrograms(got.LoggedAt), Existing: got.Existing,
		}, "%d", got.Seq)
	case got.State == client.Failed:
		// The caller reports it now, so the screen need not show it again.
		if derr := o.Discard(c.Context, out.ID); derr != nil && !errors.Is(derr, store.ErrNotFound) {
			err = errors.Join(err, derr)
		}
		return err
	case errs.CodeOf(err) == errs.CodeUnauthenticated:
		return &endError{error: err, hint: "the message is kept and will be sent after the next login\n" +
			p.hint(exitLoggedOut)}
	case c.Context.Err() != nil:
		return &endError{error: context.Canceled, code: exitInterrupted, hint: kept}
	}
	return &endError{error: err, hint: kept}
}

// maxAhead is how many lines are accepted before the first of them must be
// acknowledged.
const maxAhead = 128

// sendLines sends lines, and prints each as soon as it is acknowledged. The
// first one that is not ends it.
func (p *program) sendLines(c *cli.Context, o *online, in client.InEpoch, to client.Cached) error {
	ctx, stop := context.WithCancel(c.Context)
	defer stop()
	sent, printed := make(chan client.Outgoing, maxAhead), make(chan error, 1)
	go func() {
		defer stop()
		for out := range sent {
			if err := p.acknowledge(c, o, to.Peer.Name, out); err != nil {
				printed <- err
				return
			}
		}
		printed <- nil
	}()
	err := p.sendEach(ctx, in, to.ID, sent)
	close(sent)
	err = errors.Join(err, <-printed)
	if err == nil && c.Context.Err() != nil {
		return &endError{error: context.Canceled, code: exitInterrupted}
	}
	o.untilRead(c.Context, to.ID)
	return err
}

// sendEach sends the lines of standard input until there is none or ctx ends.
func (p *program) sendEach(ctx context.Context, in client.InEpoch, to uint64, sent chan<- client.Outgoing) error {
	lines, ended := make(chan string), make(chan error, 1)
	go func() { // a read from a terminal may block until the program ends
		defer close(lines)
		stdin := bufio.NewScanner(p.Stdin)
		stdin.Buffer(make([]byte, 0, 4096), text.MaxMessageBytes+2)
		defer func() { ended <- stdin.Err() }()
		for stdin.Scan() {
			select {
			case lines <- stdin.Text():
			case <-ctx.Done():
				return
			}
		}
	}()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case line, more := <-lines:
			switch {
			case !more:
				if <-ended != nil {
					return errs.New(errs.CodeTooLarge, "a line is longer than %d bytes", text.MaxMessageBytes)
				}
				return nil
			case strings.TrimSpace(line) == "":
				continue
			}
			out, err := in.Send(ctx, to, line)
			if err != nil {
				return fmt.Errorf("line %d: %w", n, err)
			}
			select {
			case sent <- out:
			case <-ctx.Done():
				return nil
			}
		}
	}
}

func (p *program) history(c *cli.Context) error {
	if err := noArgs(c, 0); err != nil {
		return err
	}
	if c.String("with") == "" {
		return usagef("--with is missing; see msrchat history --help")
	}
	o, err := p.open(c.Context, c, logToStderr, sendOnly)
	if err != nil {
		return err
	}
	defer o.close()
	go drain(o.Client)
	conv, ok, err := p.find(c, o, c.String("with"))
	if err != nil {
		return err
	}
	if !ok || conv.Head == 0 {
		fmt.Fprintf(p.Stderr, "no messages with %s yet; write one: msrchat send --to %s TEXT\n",
			plain.Line(c.String("with")), plain.Line(c.String("with")))
		return nil
	}
	after, left := c.Uint64("after"), c.Uint64("limit")
	switch {
	case left == 0:
		left = conv.Head
	case !c.IsSet("after") && conv.Head > left:
		after = conv.Head - left
	}
	for left > 0 {
		ctx, cancel := within(c, c.Duration("timeout"))
		page, err := o.History(ctx, conv.ID, client.Range{After: after, Limit: int(min(left, 1000))})
		cancel()
		if err != nil {
			return err
		}
		for _, m := range page.Messages {
			if left == 0 {
				break
			}
			if m.Seq != after+1 {
				return errs.New(errs.CodeInternal, "the server left out message %d", after+1)
			}
			if err := p.printer(c).message(o.login.Session.User, conv.Peer, m); err != nil {
				return err
			}
			after, left = m.Seq, left-1
		}
		if len(page.Messages) == 0 || after >= page.Head {
			return nil
		}
	}
	return nil
}

// find looks for the conversation with a person, without making one.
func (p *program) find(c *cli.Context, o *online, name string) (client.Conversation, bool, error) {
	_, key, err := text.FindName(name)
	if err != nil {
		return client.Conversation{}, false, err
	}
	ctx, cancel := within(c, c.Duration("timeout"))
	defer cancel()
	all, err := o.Conversations(ctx)
	if err != nil {
		return client.Conversation{}, false, err
	}
	for _, conv := range all {
		if store.PeerKey(conv.Peer.Name) == key {
			return conv, true, nil
		}
	}
	return client.Conversation{}, false, nil
}

func (p *program) chats(c *cli.Context) error {
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
	all, err := o.Conversations(ctx)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		fmt.Fprintln(p.Stderr, "no conversations yet; begin one: msrchat send --to NAME TEXT")
	}
	if !p.printer(c).json {
		for _, conv := range all {
			if err := p.printer(c).print(nil, "%s  %d messages", plain.Line(conv.Peer.Name), conv.Head); err != nil {
				return err
			}
		}
		return nil
	}
	ids := make([]uint64, 0, len(all))
	for _, conv := range all {
		ids = append(ids, conv.ID)
	}
	own, err := o.OwnStates(ctx, ids)
	if err != nil {
		return err
	}
	for _, conv := range all {
		chat := chatJSON{
			Conversation: decimal(conv.ID), With: conv.Peer.Name, PeerID: decimal(conv.Peer.ID), Head: conv.Head,
			Unread: client.Cached{HeadOrdinal: conv.Ordinal, Own: own[conv.ID]}.Unread(),
		}
		if chat.Last, err = p.last(c, o, conv); err != nil {
			return err
		}
		if err := p.printer(c).print(chat, ""); err != nil {
			return err
		}
	}
	return nil
}

// chatJSON is a conversation to programs. Fields are only ever added.
type chatJSON struct {
	Conversation string       `json:"conversation"`
	With         string       `json:"with"`
	PeerID       string       `json:"peer_id"`
	Head         uint64       `json:"head"`
	Unread       int          `json:"unread"`
	Last         *messageJSON `json:"last,omitempty"`
}

// last is the newest message of a conversation, nil where nothing was written.
func (p *program) last(c *cli.Context, o *online, conv client.Conversation) (*messageJSON, error) {
	if conv.Head == 0 {
		return nil, nil //nolint:nilnil // there is none
	}
	ctx, cancel := within(c, c.Duration("timeout"))
	defer cancel()
	page, err := o.History(ctx, conv.ID, client.Range{After: conv.Head - 1, Limit: 1})
	if err != nil || len(page.Messages) == 0 {
		return nil, err
	}
	m := asJSON(o.login.Session.User, conv.Peer, page.Messages[0])
	return &m, nil
}

func (p *program) outbox(c *cli.Context) error {
	if err := noArgs(c, 0); err != nil {
		return err
	}
	login, err := p.place(c)
	if err != nil {
		return err
	}
	s, err := p.profile.Store(c.Context, login)
	if err != nil {
		return err
	}
	defer s.Close()
	unsent, err := s.Unsent(c.Context)
	if err != nil {
		return err
	}
	chats, err := s.Conversations(c.Context)
	if err != nil {
		return err
	}
	names := map[uint64]string{}
	for _, chat := range chats {
		names[chat.ID] = chat.Peer.Name
	}
	if len(unsent) == 0 {
		fmt.Fprintln(p.Stderr, "the outbox is empty: everything was acknowledged")
	}
	for _, out := range unsent {
		name := names[out.Conversation]
		state, to := out.State.String(), name
		if out.State == client.Failed {
			state += ": " + out.Reason
		}
		if to == "" {
			to = "conversation " + decimal(out.Conversation)
		}
		err := p.printer(c).print(map[string]any{
			"id": out.ID.String(), "to": name, "conversation": decimal(out.Conversation), "at": forPrograms(out.At),
			"state": out.State.String(), "code": string(out.Code), "reason": out.Reason, "text": out.Text(),
		}, "%s  to %s  %s  (%s)", forHumans(out.At), plain.Line(to), plain.Line(out.Text()), plain.Line(state))
		if err != nil {
			return err
		}
		if out.State == client.Failed && c.Bool("discard") {
			if err := s.Discard(c.Context, out.ID); err != nil && !errors.Is(err, store.ErrNotFound) {
				return err
			}
		}
	}
	return nil
}
