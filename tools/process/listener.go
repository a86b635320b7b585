package process

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Listening says whether a process holds the TCP port on loopback, and which
// one, if that is visible (root sees all, others only their own).
func Listening(port int) (taken bool, holder Process, known bool) {
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err == nil {
		_ = listener.Close()
		return false, Process{}, false
	}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		for _, inode := range listeners(table, port) {
			if p, ok := socketOwner(inode); ok {
				return true, p, true
			}
		}
	}
	return true, Process{}, false
}

// listeners returns the inodes of the sockets that listen on port. A line is
// "sl local_address rem_address st … inode", the address hex as IP:PORT.
func listeners(table string, port int) []string {
	file, err := os.Open(table)
	if err != nil {
		return nil
	}
	defer file.Close()
	const listen = "0A" // TCP_LISTEN in include/net/tcp_states.h
	var inodes []string
	for lines := bufio.NewScanner(file); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) > 9 && fields[3] == listen && strings.HasSuffix(fields[1], fmt.Sprintf(":%04X", port)) {
			inodes = append(inodes, fields[9])
		}
	}
	return inodes
}

func socketOwner(inode string) (Process, bool) {
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, link := range links {
		target, err := os.Readlink(link)
		if err != nil || target != "socket:["+inode+"]" {
			continue
		}
		pid, err := strconv.Atoi(strings.Split(link, "/")[2])
		if err != nil {
			continue
		}
		return Find(pid)
	}
	return Process{}, false
}
