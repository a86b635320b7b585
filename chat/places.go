package chat

import (
	"cmp"
	"fmt"

	"github.com/msrchat/msrchat/shared/cache"
	"github.com/msrchat/msrchat/shared/database"

	"github.com/msrchat/msrchat/chat/internal/conn"
	"github.com/msrchat/msrchat/chat/internal/fanout"
	"github.com/msrchat/msrchat/chat/internal/lane"
	"github.com/msrchat/msrchat/chat/internal/peer"
)

// Every connection is an open file, and the number of a process's open files is
// limited.
const (
	// reservedFiles are for what is not counted one by one: listeners, the log,
	// Consul, health checks, scrapes, and the links with some hundred peers.
	reservedFiles = 256
	// leastHandshaking is how many connections there must be room for beside the
	// admitted ones.
	leastHandshaking = 256
)

// What a server may need of memory at most. The job (nomad/chat.nomad.hcl) reserves it
// by the same numbers; a test compares the two.
const (
	// ProgramMemory is the program, its remembered members, heads and routes, and pages
	// that are made for clients: 16 at a time, each a quarter of a MiB in three forms.
	ProgramMemory = 100 << 20
	// BoundMemory is what may wait at the bounds in ARCHITECTURE.md, all full at once.
	BoundMemory = conn.DefaultMemory + lane.MaxWaitingBytes + peer.MaxOffered + peer.MaxTogetherBytes +
		fanout.MaxWaitingBytes
	// ConnMemory is for one connection: 12 KiB idle with TLS, and what does not count of
	// its queues.
	ConnMemory = 16 << 10
)

// places divides the files that a server may open, and its memory (0: no limit). The
// databases' pools and the reserve come first; admitted connections and those in their
// handshake share the rest. The capacity is lowered to what fits; it is an error if
// nothing fits.
func (c Config) places(files int, memory int64) (capacity, handshaking int, err error) {
	pools := cmp.Or(c.Database.MaxOpen, database.DefaultMaxOpen) + cmp.Or(c.Redis.PoolSize, cache.DefaultPoolSize)
	left := files - reservedFiles - pools
	if left <= leastHandshaking {
		return 0, 0, fmt.Errorf(
			"the limit of %d open files leaves no room for connections: raise it above %d (ulimit -n)",
			files, reservedFiles+pools+leastHandshaking)
	}
	capacity = min(c.Capacity, left-leastHandshaking)
	if memory > 0 {
		room := memory - ProgramMemory - BoundMemory
		if room < ConnMemory {
			return 0, 0, fmt.Errorf(
				"the memory limit of %d MiB leaves no room for connections: raise it above %d (GOMEMLIMIT)",
				memory>>20, (ProgramMemory+BoundMemory)>>20)
		}
		capacity = min(capacity, int(room/ConnMemory))
	}
	return capacity, min(conn.DefaultHandshaking, left-capacity), nil
}
