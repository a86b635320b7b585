package chat

import (
	"cmp"
	"fmt"

	"github.com/msrchat/msrchat/shared/cache"
	"github.com/msrchat/msrchat/shared/database"

	"github.com/msrchat/msrchat/chat/internal/conn"
)

// Every connection is an open file, of which a process may have so many.
const (
	// reservedFiles are for what is not counted one by one: listeners, the log,
	// Consul, health checks, scrapes, and two links to each of some hundred peers.
	reservedFiles = 256
	// leastStrangers is how many connections must be able to be on their way in.
	leastStrangers = 256
)

// places divides the files that a server may open: as many as the databases'
// pools may take and the reserve are kept, the rest is for connections that are
// let in and for those on their way in. The capacity is lowered to what fits;
// the error says that nobody would.
func (c Config) places(files int) (capacity, strangers int, err error) {
	others := reservedFiles + cmp.Or(c.Database.MaxOpen, database.DefaultMaxOpen) + cmp.Or(c.Redis.PoolSize, cache.DefaultPoolSize)
	left := files - others
	if left <= leastStrangers {
		return 0, 0, fmt.Errorf("the limit of %d open files leaves no room for connections: raise it above %d (ulimit -n)", files, others+leastStrangers)
	}
	capacity = min(c.Capacity, left-leastStrangers)
	return capacity, min(conn.DefaultStrangers, left-capacity), nil
}
