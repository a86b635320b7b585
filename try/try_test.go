package try_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/client/store"
	"github.com/msrchat/msrchat/shared/cache"
	"github.com/msrchat/msrchat/shared/database"
	"github.com/msrchat/msrchat/shared/testenv"
	"github.com/msrchat/msrchat/tools/process"
)

// A first look, as people have it: two register with the codes that the program shows,
// and chat; Ctrl-C ends everything; the next time all is there. One that is killed
// leaves no program behind, and the next one goes on.
func TestTwoPeopleChatAndFindItAllAgain(t *testing.T) {
	c := newCheckout(t)
	first := c.start()
	ann, ben := first.register("ann"), first.register("ben")
	ann.send("ben", "hello 你好")
	ben.shows("ann", "hello 你好")
	ben.send("ann", "hello ann")
	ann.shows("ben", "hello 你好", "hello ann")
	children := first.children()
	if len(children) != 2 {
		t.Errorf("its children are %v, want MariaDB and Redis", children)
	}
	first.end(syscall.SIGINT)
	gone(t, children)

	second := c.start()
	second.logIn("ann").shows("ben", "hello 你好", "hello ann")
	children = second.children()
	second.end(syscall.SIGKILL)
	gone(t, children)

	third := c.start()
	third.logIn("ben").shows("ann", "hello 你好", "hello ann")
	third.end(syscall.SIGHUP) // the terminal was closed
}

// What is in the way is said, and nothing is touched.
func TestWhatIsInTheWayIsSaid(t *testing.T) {
	c := newCheckout(t)
	running := c.start()
	c.refused("./justw try runs in this checkout (pid " + strconv.Itoa(running.cmd.Process.Pid) + ")")
	other := newCheckout(t)
	other.base = c.base
	other.refused("port "+strconv.Itoa(c.base)+" (gate) is taken by pid "+strconv.Itoa(running.cmd.Process.Pid),
		"MSRCHAT_PORT_BASE="+strconv.Itoa(c.base+1000))
	running.end(syscall.SIGTERM)

	managed := newCheckout(t)
	if err := os.WriteFile(filepath.Join(managed.state, "managed-by"), []byte("up\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	managed.refused("the fleet of this checkout is up", "./justw down")
}

// Other users of the machine reach the ports; without the passwords they get no further,
// and the passwords are for nobody else to read.
func TestSecretsArePrivate(t *testing.T) {
	c := newCheckout(t)
	running := c.start()
	defer running.end(syscall.SIGTERM)
	for _, name := range []string{"init.sql", "redis.conf"} {
		info, err := os.Stat(filepath.Join(c.state, "try", name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	for _, user := range []string{"root", "msrchat"} {
		db, err := database.Open(t.Context(), database.Config{Addr: c.addr(20), User: user, Name: "msrchat"})
		if err == nil {
			_ = db.Close()
			t.Errorf("%s gets into MariaDB without a password", user)
		}
	}
	redis, err := cache.Open(cache.Config{Addrs: []string{c.addr(21)}})
	if err != nil {
		t.Fatal(err)
	}
	defer redis.Close()
	if err := redis.Ping(t.Context()).Err(); err == nil || !strings.Contains(err.Error(), "NOAUTH") {
		t.Errorf("Redis without a password: %v", err)
	}
}

// checkout is a state folder and ports, for several runs in turn.
type checkout struct {
	t       *testing.T
	program string
	state   string
	base    int
}

// folder is where the program is built; TestMain makes and removes it.
var folder string

func TestMain(m *testing.M) {
	var err error
	if folder, err = os.MkdirTemp("", "msrchat-try-"); err != nil {
		panic(err)
	}
	m.Run()
	_ = os.RemoveAll(folder)
}

// built is the program, once for all tests.
var built = sync.OnceValues(func() (string, error) {
	program := filepath.Join(folder, "try")
	out, err := exec.Command("go", "build", "-o", program, "./cmd/try").CombinedOutput()
	if err != nil {
		return string(out), err
	}
	return program, nil
})

func newCheckout(t *testing.T) *checkout {
	t.Helper()
	for _, name := range []string{"mariadbd", "redis-server"} {
		testenv.Find(t, name)
	}
	program, err := built()
	if err != nil {
		t.Fatalf("%v\n%s", err, program)
	}
	return &checkout{t: t, program: program, state: t.TempDir(), base: freeBase(t)}
}

// freeBase is a base whose ports nobody has.
func freeBase(t *testing.T) int {
	t.Helper()
	for range 100 {
		base := testenv.FreePort(t)
		if !slices.ContainsFunc([]int{0, 20, 21, 25, 26}, func(offset int) bool {
			taken, _, _ := process.Listening(base + offset)
			return taken
		}) {
			return base
		}
	}
	t.Fatal("no free ports")
	return 0
}

// addr is the port that the fleet's table has at an offset.
func (c *checkout) addr(offset int) string { return "127.0.0.1:" + strconv.Itoa(c.base+offset) }

func (c *checkout) command() *exec.Cmd {
	cmd := exec.Command(c.program, "--state", c.state, "--port-base", strconv.Itoa(c.base))
	return cmd
}

// refused wants the program to end at once, with these texts.
func (c *checkout) refused(texts ...string) {
	c.t.Helper()
	out, err := c.command().CombinedOutput()
	if err == nil {
		c.t.Fatalf("it ran:\n%s", out)
	}
	for _, text := range texts {
		if !strings.Contains(string(out), text) {
			c.t.Errorf("it does not say %q:\n%s", text, out)
		}
	}
}

// run is one run of the program. The mutex owns what it printed.
type run struct {
	*checkout
	cmd   *exec.Cmd
	ended chan error
	up    chan struct{} // closed when people can chat

	mu   sync.Mutex
	out  bytes.Buffer
	isUp bool
}

func (r *run) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, err := r.out.Write(p)
	if !r.isUp && bytes.Contains(r.out.Bytes(), []byte("msrChat runs")) {
		r.isUp = true
		close(r.up)
	}
	return n, err
}

func (r *run) printed() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.out.String()
}

// start returns once people can chat; the program itself gives up when that takes long.
func (c *checkout) start() *run {
	c.t.Helper()
	r := &run{checkout: c, cmd: c.command(), ended: make(chan error, 1), up: make(chan struct{})}
	r.cmd.Stdout, r.cmd.Stderr = r, r
	if err := r.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	go func() { r.ended <- r.cmd.Wait() }()
	c.t.Cleanup(func() { _ = r.cmd.Process.Kill() }) // it has ended, or the test failed
	select {
	case <-r.up:
	case err := <-r.ended:
		c.t.Fatalf("it ended: %v\n%s", err, r.printed())
	}
	return r
}

// end sends a signal; but for SIGKILL the program has to end well.
func (r *run) end(signal syscall.Signal) {
	r.t.Helper()
	if err := r.cmd.Process.Signal(signal); err != nil {
		r.t.Fatal(err)
	}
	if err := <-r.ended; err != nil && signal != syscall.SIGKILL {
		r.t.Errorf("after %v: %v\n%s", signal, err, r.printed())
	}
	if signal != syscall.SIGKILL && !strings.Contains(r.printed(), "msrChat has ended") {
		r.t.Errorf("no farewell:\n%s", r.printed())
	}
}

// children are the programs that it started.
func (r *run) children() []process.Process {
	r.t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		r.t.Skip("not run: there is no /proc to find its children in")
	}
	var found []process.Process
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if p, ok := process.Find(pid); ok && p.Parent == r.cmd.Process.Pid {
			found = append(found, p)
		}
	}
	return found
}

func gone(t *testing.T, list []process.Process) {
	t.Helper()
	testenv.Until(t, "its programs are gone", func() bool {
		return !slices.ContainsFunc(list, process.Process.Running)
	})
}

// person is somebody with a client.
type person struct {
	t *testing.T
	*client.Client
}

func (r *run) gate() *client.Gate {
	r.t.Helper()
	gate, err := client.NewGate("http://"+r.addr(0), nil)
	if err != nil {
		r.t.Fatal(err)
	}
	return gate
}

func password(name string) string { return "correct horse " + name }

// register takes the code from what the program prints.
func (r *run) register(name string) person {
	r.t.Helper()
	email := name + "@example.org"
	if err := r.gate().Code(r.t.Context(), email); err != nil {
		r.t.Fatal(err)
	}
	shown := regexp.MustCompile(`mail to ` + email + `: .*: (\d{6})\n`)
	var code string
	testenv.Until(r.t, "the code of "+name, func() bool {
		match := shown.FindStringSubmatch(r.printed())
		if match != nil {
			code = match[1]
		}
		return match != nil
	})
	reply, err := r.gate().Register(r.t.Context(), client.Registration{
		Email: email, Name: name, Password: password(name), Code: code, Device: "test",
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return r.connect(reply)
}

func (r *run) logIn(name string) person {
	r.t.Helper()
	reply, err := r.gate().Login(r.t.Context(), client.Credentials{
		Name: name, Password: password(name), Device: "test",
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return r.connect(reply)
}

func (r *run) connect(reply client.LoginReply) person {
	r.t.Helper()
	c, err := client.Open(r.t.Context(), client.Options{
		Gate: r.gate(), Session: reply.Session, Assignment: reply.Assignment, Store: store.NewMemory(100),
		Program: "test",
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(c.Close)
	go func() {
		for range c.Events() { //nolint:revive // the test asks for what it wants to know
		}
	}()
	return person{r.t, c}
}

func (p person) with(name string) uint64 {
	p.t.Helper()
	if _, err := p.WaitOnline(p.t.Context()); err != nil {
		p.t.Fatal(err)
	}
	conversation, err := p.OpenDirect(p.t.Context(), name)
	if err != nil {
		p.t.Fatal(err)
	}
	return conversation.ID
}

func (p person) send(to, text string) {
	p.t.Helper()
	out, err := p.Send(p.t.Context(), p.with(to), text)
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := p.Wait(p.t.Context(), out.ID); err != nil {
		p.t.Fatal(err)
	}
}

// shows wants a conversation to have these texts, on this client.
func (p person) shows(with string, texts ...string) {
	p.t.Helper()
	conversation := p.with(with)
	var got []string
	testenv.Until(p.t, "the conversation with "+with, func() bool {
		page, err := p.Messages(p.t.Context(), conversation, 0, 100)
		if err != nil {
			p.t.Fatal(err)
		}
		got = nil
		for _, m := range page {
			got = append(got, m.Text())
		}
		return slices.Equal(got, texts)
	})
}
