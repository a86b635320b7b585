package chat

import (
	"cmp"
	"fmt"

	"github.com/msrchat/msrchat/shared/cache"
	"github.com/msrchat/msrchat/shared/database"

	"github.com/msrchat/msrchat/chat/internal/conn"
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

// places divides the files that a server may open. The databases' pools and the
// reserve come first; admitted connections and those in their handshake share the
// rest. The capacity is lowered to what fits; it is an error if nothing fits.
func (c Config) places(files int) (capacity, handshaking int, err error) {
	pools := cmp.Or(c.Database.MaxOpen, database.DefaultMaxOpen) + cmp.Or(c.Redis.PoolSize, cache.DefaultPoolSize)
	left := files - reservedFiles - pools
	if left <= leastHandshaking {
		return 0, 0, fmt.Errorf(
			"the limit of %d open files leaves no room for connections: raise it above %d (ulimit -n)",
			files, reservedFiles+pools+leastHandshaking)
	}
	capacity = min(c.Capacity, left-leastHandshaking)
	return capacity, min(conn.DefaultHandshaking, left-capacity), nil
}
