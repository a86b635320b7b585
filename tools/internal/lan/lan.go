// Package lan makes a small network on one Linux machine: a network namespace
// for each node, and one with a bridge as the switch between them. The machine
// itself is connected too, as the host of the users. It needs root and the
// program ip.
//
// The bridge has a namespace of its own, so that this machine's packet filters
// (those of Docker, for example) do not affect the nodes, and so that deleting
// the namespaces leaves nothing behind.
package lan

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Users is the host of the users: the machine itself.
const Users = "users"

const (
	prefix = "msrchat-" // of every namespace's name
	// device is a node's only network device.
	device = "eth0"
	// unusedMAC is a locally administered hardware address that no port has.
	unusedMAC = "02:00:00:00:00:00"
	// firstHost is the last part of the first node's address; that of Users is 1.
	firstHost = 10
)

// LAN is one such network. Its methods are for one goroutine.
type LAN struct {
	id    string // in all names; a device's name has at most 15 characters
	net   string // "10.99.0."
	nodes []string
}

// New names the network of the fleet whose state is in folder, without creating
// it. The same folder gives the same names, so that leftovers are found.
func New(folder string, nodes ...string) *LAN {
	sum := sha256.Sum256([]byte(folder))
	return &LAN{id: hex.EncodeToString(sum[:4]), nodes: nodes}
}

// Namespace is a node's network namespace, below /run/netns.
func (l *LAN) Namespace(node string) string { return prefix + l.id + "-" + node }

func (l *LAN) switchName() string { return prefix + l.id + "-switch" }

func (l *LAN) usersDevice() string { return "msr" + l.id }

// Address is a node's IP address, or that of Users.
func (l *LAN) Address(node string) string {
	if node == Users {
		return l.net + "1"
	}
	return l.net + fmt.Sprint(firstHost+slices.Index(l.nodes, node))
}

// Create creates the network. Call Delete first if an earlier one may be left,
// and after an error.
func (l *LAN) Create(ctx context.Context) error {
	if _, err := exec.LookPath("ip"); err != nil {
		return errors.New("the program ip is not on PATH; Debian's package is iproute2")
	}
	var err error
	if l.net, err = freeNet(); err != nil {
		return err
	}
	s := l.switchName()
	steps := [][]string{
		{"netns", "add", s},
		{"-n", s, "link", "add", "br0", "type", "bridge"},
		{"-n", s, "link", "set", "br0", "up"},
		{"link", "add", "name", l.usersDevice(), "type", "veth", "peer", "name", Users, "netns", s},
		{"-n", s, "link", "set", Users, "master", "br0", "up"},
		{"addr", "add", l.Address(Users) + "/24", "dev", l.usersDevice()},
		{"link", "set", l.usersDevice(), "up"},
	}
	for _, node := range l.nodes {
		n := l.Namespace(node)
		steps = append(steps,
			[]string{"netns", "add", n},
			[]string{"-n", n, "link", "set", "lo", "up"},
			[]string{"-n", s, "link", "add", "name", node, "type", "veth", "peer", "name", device, "netns", n},
			[]string{"-n", s, "link", "set", "dev", node, "master", "br0", "up"},
			[]string{"-n", n, "addr", "add", l.Address(node) + "/24", "dev", device},
			[]string{"-n", n, "link", "set", device, "up"},
		)
	}
	for _, step := range steps {
		if err := ip(ctx, step...); err != nil {
			return fmt.Errorf("create the nodes' network: %w", err)
		}
	}
	return nil
}

// freeNet finds a /24 that no device of this machine has, usually 10.99.0.0.
func freeNet() (string, error) {
	taken, err := net.InterfaceAddrs()
	if err != nil {
		return "", fmt.Errorf("list addresses: %w", err)
	}
	for n := range 100 {
		candidate := fmt.Sprintf("10.99.%d.", n)
		_, network, err := net.ParseCIDR(candidate + "0/24")
		if err != nil {
			return "", err
		}
		if !slices.ContainsFunc(taken, func(a net.Addr) bool {
			other, ok := a.(*net.IPNet)
			return ok && (network.Contains(other.IP) || other.Contains(network.IP))
		}) {
			return candidate, nil
		}
	}
	return "", errors.New("no network of 10.99.0.0/16 is free on this machine")
}

// Unplug disconnects a node from the switch; Plug connects it again.
func (l *LAN) Unplug(ctx context.Context, node string) error {
	return ip(ctx, "-n", l.switchName(), "link", "set", "dev", node, "down")
}

// Plug undoes Unplug.
func (l *LAN) Plug(ctx context.Context, node string) error {
	return ip(ctx, "-n", l.switchName(), "link", "set", "dev", node, "up")
}

// Cut drops everything that two hosts send each other, without an error: each
// has an unused hardware address for the other.
func (l *LAN) Cut(ctx context.Context, a, b string) error {
	return l.bothWays(ctx, a, b, func(at, to string) []string {
		return append(l.at(at),
			"neigh", "replace", l.Address(to), "lladdr", unusedMAC, "nud", "permanent", "dev", l.deviceAt(at))
	})
}

// Mend undoes Cut.
func (l *LAN) Mend(ctx context.Context, a, b string) error {
	return l.bothWays(ctx, a, b, func(at, to string) []string {
		return append(l.at(at), "neigh", "del", l.Address(to), "dev", l.deviceAt(at))
	})
}

func (l *LAN) bothWays(ctx context.Context, a, b string, command func(at, to string) []string) error {
	return errors.Join(ip(ctx, command(a, b)...), ip(ctx, command(b, a)...))
}

// at begins a command of ip for a host.
func (l *LAN) at(host string) []string {
	if host == Users {
		return nil
	}
	return []string{"-n", l.Namespace(host)}
}

func (l *LAN) deviceAt(host string) string {
	if host == Users {
		return l.usersDevice()
	}
	return device
}

// Delete removes the network, or what is left of it. End the processes in it
// first, because they keep a namespace alive.
func (l *LAN) Delete(ctx context.Context) error {
	var errs []error
	for _, namespace := range l.Namespaces() {
		errs = append(errs, ip(ctx, "netns", "del", namespace))
	}
	// Its other end goes with the switch's namespace, perhaps a moment later.
	// Deleted by name, so that a new network does not have to wait for that.
	if _, err := net.InterfaceByName(l.usersDevice()); err == nil {
		if err := ip(ctx, "link", "del", l.usersDevice()); err != nil {
			if _, still := net.InterfaceByName(l.usersDevice()); still == nil {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// Namespaces lists the existing namespaces of this network, by name.
func (l *LAN) Namespaces() []string {
	paths, _ := filepath.Glob(filepath.Join("/run/netns", prefix+l.id+"-*"))
	for i, path := range paths {
		paths[i] = filepath.Base(path)
	}
	return paths
}

// Processes lists the ids of the processes in a namespace.
func Processes(namespace string) []int {
	want, err := os.Stat(filepath.Join("/run/netns", namespace))
	if err != nil {
		return nil
	}
	var pids []int
	links, _ := filepath.Glob("/proc/[0-9]*/ns/net")
	for _, link := range links {
		is, err := os.Stat(link)
		if err != nil || !os.SameFile(want, is) {
			continue
		}
		var pid int
		if _, err := fmt.Sscanf(link, "/proc/%d/", &pid); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

func ip(ctx context.Context, args ...string) error {
	output, err := exec.CommandContext(ctx, "ip", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(output)))
	}
	return nil
}
