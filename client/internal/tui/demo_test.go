package tui

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/shared/errs"
)

// demoEnv makes the test binary be the program, on a fake backend: with it the
// screen is looked at in a real terminal, by TestTerminal and by people.
//
//	go test -c -o /tmp/demo ./internal/tui && MSRCHAT_TUI_DEMO=1 /tmp/demo
const demoEnv = "MSRCHAT_TUI_DEMO"

func TestMain(m *testing.M) {
	if os.Getenv(demoEnv) != "" {
		os.Exit(demo())
	}
	os.Exit(m.Run())
}

func demo() int {
	f := demoBackend(time.Now)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go f.echo(ctx)
	if err := Run(ctx, Options{Backend: f}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// echo is a lively fake: what is written to bob comes back from him after a
// moment. "offline" takes the connection away until Ctrl+R, "refuse" has the
// next messages refused, "accept" ends that.
func (f *fakeBackend) echo(ctx context.Context) {
	seen := map[client.MessageID]bool{}
	for tick := time.NewTicker(200 * time.Millisecond); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		f.mu.Lock()
		var answers []client.Message
		for conv, log := range f.logs {
			if len(log) == 0 || f.peers[conv].Name != "bob" {
				continue
			}
			last := log[len(log)-1]
			if last.Sender == f.me.ID && !seen[last.ID] && time.Since(last.At) < time.Minute {
				seen[last.ID] = true
				answers = append(answers, last)
			}
		}
		f.mu.Unlock()
		for _, m := range answers {
			switch m.Text() {
			case "offline":
				f.mu.Lock()
				f.hold = true
				f.mu.Unlock()
				f.setLink(client.Link{
					State: client.Offline, RetryAt: time.Now().Add(90 * time.Second),
					Cause: errs.New(errs.CodeUnavailable, "the gate cannot be reached"),
				})
			case "refuse":
				f.mu.Lock()
				f.refuse = errs.New(errs.CodeRateLimited, "too many messages; wait a moment")
				f.mu.Unlock()
			default:
				f.say(m.Conversation, "You wrote: "+m.Text())
			}
		}
	}
}

// demoBackend has chats with what is hard to show.
func demoBackend(clock func() time.Time) *fakeBackend {
	f := newFake("ann")
	f.clock = clock
	day, hour, minute := 24*time.Hour, time.Hour, time.Minute
	f.conversation("Carla", 100, line{false, 3 * day, "See you on Friday then."}, line{true, 3*day - minute, "Yes!"})
	f.conversation("小林さくら", 100,
		line{false, 2 * day, "明日の会議は10時からです。資料は共有フォルダーに入れておきました。"},
		line{true, 2*day - 5*minute, "ありがとうございます。確認します 👍🏽"},
		line{false, 26 * hour, "よろしくお願いします。"})
	f.conversation("김민준", 100, line{false, 5 * hour, "점심 같이 먹을래요?"})
	old := make([]line, 0, 400)
	for i := range 400 {
		old = append(old, line{i%3 == 0, 40*day - time.Duration(i)*hour, fmt.Sprintf("Old message number %d.", i+1)})
	}
	f.conversation("bob", 100, append(old,
		line{false, 27 * hour, "你好！我们明天下午三点在北京大学东门见面，好吗？如果下雨的话就改到图书馆一楼的咖啡厅。"},
		line{true, 27*hour - 2*minute, "好的 👌 I'll bring the plans, and the family says hello 👨‍👩‍👧 ❤️"},
		line{
			true, 26 * hour,
			"A longer message, to see how lines break: the quick brown fox jumps over the lazy dog, " +
				"and then goes on to https://example.org/a/very/long/path/that/has/no/spaces/in/it/at/all to read.",
		},
		line{
			false, 3 * hour,
			"Here is the list:\n\t1. flag 🇨🇳 and 🏳️‍🌈\n\t2. keycap 1️⃣ and warning ⚠️\n\n\tfunc main() {}",
		},
		line{true, 3*hour - 30*time.Second, "Thanks!"},
		line{true, 2 * hour, "Did it arrive? ✓"},
		line{false, 30 * minute, "It did 🎉☕"},
		line{false, 29 * minute, "Ctrl trick: \x1b[31mred\x1b]52;c;aGk=\x07 and \u202Eturned\u202C"})...)
	f.conversation("Dimitri.K", 100, line{false, 10 * minute, strings.Repeat("Много слов. ", 12)})
	f.person("Eve")
	return f
}
