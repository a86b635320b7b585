package demo

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/colorprofile"
)

// The director's pane is this program once more. It gets states as lines of JSON
// through a Unix socket, and answers with the names of keys, one a line.

// Pane shows what comes through a socket until it closes or ctx ends.
func Pane(ctx context.Context, socket string) error {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", socket)
	if err != nil {
		return fmt.Errorf("find the demo: %w", err)
	}
	defer conn.Close()
	options := []tea.ProgramOption{tea.WithContext(ctx)}
	if os.Getenv("NO_COLOR") != "" {
		options = append(options, tea.WithColorProfile(colorprofile.ASCII)) // any value counts (no-color.org)
	}
	p := tea.NewProgram(pane{keys: conn, focused: true}, options...)
	ended := make(chan error, 1)
	go func() {
		states := json.NewDecoder(conn)
		for {
			var s State
			if err := states.Decode(&s); err != nil {
				p.Quit()
				ended <- err
				return
			}
			p.Send(s)
		}
	}()
	_, err = p.Run()
	_ = conn.Close() // ends the reader
	<-ended          //nolint:errcheck // it ends by the closed connection
	if errors.Is(err, tea.ErrProgramKilled) {
		err = nil // ctx ended
	}
	return err
}

// pane is the Bubble Tea model.
type pane struct {
	keys          net.Conn
	state         *State
	width, height int
	focused       bool
}

func (p pane) Init() tea.Cmd { return nil }

func (p pane) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case State:
		p.state = &msg
	case tea.WindowSizeMsg:
		p.width, p.height = msg.Width, msg.Height
	case tea.FocusMsg:
		p.focused = true
	case tea.BlurMsg:
		p.focused = false
	case tea.KeyPressMsg:
		return p, p.tell(msg.Keystroke())
	}
	return p, nil
}

// tell passes a key on. The demo acts on it; that it cannot be reached any more
// shows as the end of the states.
func (p pane) tell(key string) tea.Cmd {
	return func() tea.Msg {
		_ = p.keys.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = p.keys.Write([]byte(key + "\n"))
		return nil
	}
}

func (p pane) View() tea.View {
	text := ""
	if p.state != nil {
		text = strings.Join(view(*p.state, p.width, p.height, p.focused), "\n")
	}
	v := tea.NewView(text)
	v.AltScreen, v.ReportFocus = true, true
	return v
}

// screen is the demo's end of the socket.
type screen struct {
	listener net.Listener
	conn     net.Conn
	keys     chan string
}

// listen opens the socket.
func listen(ctx context.Context, socket string) (*screen, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("listen for the director's pane: %w", err)
	}
	return &screen{listener: l, keys: make(chan string)}, nil
}

// accept waits for the pane. Its keys come until ctx ends.
func (s *screen) accept(ctx context.Context) (err error) {
	stop := context.AfterFunc(ctx, func() { _ = s.listener.Close() })
	defer stop()
	if s.conn, err = s.listener.Accept(); err != nil {
		return fmt.Errorf("the director's pane has not come: %w", errors.Join(err, ctx.Err()))
	}
	go func() {
		for keys := bufio.NewScanner(s.conn); keys.Scan(); {
			select {
			case s.keys <- keys.Text():
			case <-ctx.Done():
			}
		}
	}()
	return nil
}

// show shows a state. A pane that is gone is nothing to act on: its session ends.
func (s *screen) show(state State) {
	_ = s.conn.SetWriteDeadline(time.Now().Add(time.Second))
	_ = json.NewEncoder(s.conn).Encode(state)
}

func (s *screen) close() {
	_ = s.listener.Close()
	if s.conn != nil {
		_ = s.conn.Close()
	}
}
