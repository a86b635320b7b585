package page_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"

	"github.com/msrchat/msrchat/shared/testenv"
)

// chromium is one page in a headless Chromium, which is controlled over a pipe by
// messages of its DevTools protocol, each ended by a zero byte. It is for one
// goroutine and ends with the test.
type chromium struct {
	t       *testing.T
	in      io.Writer
	out     *bufio.Reader
	session string
	calls   int
}

// startChromium opens url; without Chromium the test is not run.
func startChromium(t *testing.T, url string) *chromium {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("not run: chromium is not on PATH (tools/get chromium brings it)")
	}
	theirIn, ourOut := pipe(t)
	ourIn, theirOut := pipe(t)
	cmd := exec.Command(path, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
		"--user-data-dir="+t.TempDir(), "--remote-debugging-pipe", "about:blank")
	cmd.ExtraFiles = []*os.File{theirIn, theirOut} // 3 and 4, as it expects them
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &chromium{t: t, in: ourOut, out: bufio.NewReader(ourIn)}
	t.Cleanup(func() {
		c.call("Browser.close", nil, nil) // so that its children end with it
		_ = cmd.Wait()                    // it was asked to end
	})
	theirIn.Close()
	theirOut.Close()
	var target struct {
		TargetID string `json:"targetId"`
	}
	c.call("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var attached struct {
		SessionID string `json:"sessionId"`
	}
	c.call("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached)
	c.session = attached.SessionID
	c.call("Page.navigate", map[string]any{"url": url}, nil)
	return c
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = r.Close() // closed already if a child got it
		_ = w.Close()
	})
	return r, w
}

// call calls a method and decodes its result, unless result is nil.
func (c *chromium) call(method string, params, result any) {
	c.t.Helper()
	c.calls++
	message := map[string]any{"id": c.calls, "method": method, "params": params}
	if params == nil {
		message["params"] = map[string]any{}
	}
	if c.session != "" && method != "Browser.close" {
		message["sessionId"] = c.session
	}
	body, err := json.Marshal(message)
	if err == nil {
		_, err = c.in.Write(append(body, 0))
	}
	for err == nil {
		if body, err = c.out.ReadBytes(0); err != nil {
			break
		}
		var answer struct {
			ID     int             `json:"id"`
			Result json.RawMessage `json:"result"`
			Error  json.RawMessage `json:"error"`
		}
		if err = json.Unmarshal(body[:len(body)-1], &answer); err != nil || answer.ID != c.calls {
			continue // an event
		}
		if answer.Error != nil {
			err = fmt.Errorf("chromium says %s", answer.Error)
		} else if result != nil {
			err = json.Unmarshal(answer.Result, result)
		}
		break
	}
	if err != nil {
		c.t.Errorf("%s: %v", method, err)
	}
}

// js evaluates an expression in the page. An exception, such as one while the
// page is still loading, gives nil.
func (c *chromium) js(expression string) any {
	c.t.Helper()
	var got struct {
		Result struct {
			Value any `json:"value"`
		} `json:"result"`
	}
	c.call("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true}, &got)
	return got.Result.Value
}

// until waits for an expression to be true.
func (c *chromium) until(expression string) {
	c.t.Helper()
	defer func() {
		if c.t.Failed() {
			c.t.Logf("the page: %v", c.js("document.body.innerText"))
		}
	}()
	testenv.Until(c.t, expression, func() bool { return c.js(expression) == true || c.t.Failed() })
}

// text is the visible text of the first element that a selector matches.
func (c *chromium) text(selector string) any {
	c.t.Helper()
	return c.js(fmt.Sprintf("document.querySelector(%q).innerText", selector))
}

// resize sets the size of the window and the colour scheme.
func (c *chromium) resize(width, height int, scheme string) {
	c.t.Helper()
	c.call("Emulation.setDeviceMetricsOverride",
		map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}, nil)
	c.call("Emulation.setEmulatedMedia",
		map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}}, nil)
}
