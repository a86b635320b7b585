package proc

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// clockTick is USER_HZ, which is 100 on every Linux that Go runs on.
const clockTick = 10 * time.Millisecond

// Read reads what a process has used. The error is ErrNotMeasured where the process
// cannot be seen.
func Read(pid int) (Usage, error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return Usage{}, errors.Join(ErrNotMeasured, err)
	}
	// The name, in brackets, may hold any byte; the fields begin behind it.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	const utime, stime = 14 - 3, 15 - 3 // numbered from 1 in proc(5), the first here is 3
	if len(fields) <= stime {
		return Usage{}, fmt.Errorf("process %d: %w: its stat is cut", pid, ErrNotMeasured)
	}
	var ticks int64
	for _, i := range []int{utime, stime} {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return Usage{}, fmt.Errorf("process %d: %w: %w", pid, ErrNotMeasured, err)
		}
		ticks += n
	}
	statm, err := os.ReadFile(filepath.Join(dir, "statm"))
	if err != nil {
		return Usage{}, errors.Join(ErrNotMeasured, err)
	}
	pages := strings.Fields(string(statm))
	if len(pages) < 2 {
		return Usage{}, fmt.Errorf("process %d: %w: its statm is cut", pid, ErrNotMeasured)
	}
	resident, err := strconv.ParseInt(pages[1], 10, 64)
	if err != nil {
		return Usage{}, fmt.Errorf("process %d: %w: %w", pid, ErrNotMeasured, err)
	}
	return Usage{CPU: time.Duration(ticks) * clockTick, RSS: resident * int64(os.Getpagesize())}, nil
}

// Listener returns the process that listens on host:port, or on that port of
// every address.
func Listener(address string) (int, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrNotMeasured, err)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("%w: port %q", ErrNotMeasured, port)
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	inode, err := listening(net.ParseIP(host), uint16(number))
	if err != nil {
		return 0, err
	}
	want := "socket:[" + inode + "]"
	links, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrNotMeasured, err)
	}
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil && to == want {
			return strconv.Atoi(strings.Split(link, "/")[2])
		}
	}
	return 0, fmt.Errorf("the process that listens on %s: %w", address, ErrNotMeasured)
}

// listening returns the inode of the socket that listens on an address; nil is any.
func listening(ip net.IP, port uint16) (inode string, err error) {
	const stateListen = "0A"
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, err := os.ReadFile(table)
		if err != nil {
			continue // without IPv6 there is no such table
		}
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line)
			if len(f) < 10 || f[3] != stateListen {
				continue
			}
			at, p, ok := parseAddress(f[1])
			if ok && p == port && (ip == nil || at.Equal(ip) || at.IsUnspecified()) {
				return f[9], nil
			}
		}
	}
	return "", fmt.Errorf("the process that listens on port %d: %w", port, ErrNotMeasured)
}

// parseAddress reads 0100007F:1E14: words of four bytes in the machine's order.
func parseAddress(s string) (net.IP, uint16, bool) {
	address, port, ok := strings.Cut(s, ":")
	raw, err := hex.DecodeString(address)
	number, bad := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil || bad != nil || len(raw)%4 != 0 {
		return nil, 0, false
	}
	for i := 0; i < len(raw); i += 4 {
		binary.BigEndian.PutUint32(raw[i:], binary.NativeEndian.Uint32(raw[i:]))
	}
	return net.IP(raw), uint16(number), true
}
