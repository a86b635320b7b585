package chat

import (
	"strings"
	"testing"

	"github.com/msrchat/msrchat/shared/cache"
	"github.com/msrchat/msrchat/shared/database"
)

func TestPlacesFitTheLimitOfOpenFiles(t *testing.T) {
	const others = 256 + database.DefaultMaxOpen + cache.DefaultPoolSize
	for _, c := range []struct {
		name                          string
		files                         int
		capacity                      int
		wantCapacity, wantHandshaking int
	}{
		{"the default under 20,000", 20_000, DefaultCapacity, 18_200, 20_000 - 18_200 - others},
		{"no limit", 1 << 30, DefaultCapacity, 18_200, 2048},
		{"plenty", 1 << 20, 100_000, 100_000, 2048},
		{"a small limit", 1024, DefaultCapacity, 1024 - others - 256, 256},
		{"more than fits", 20_000, 25_000, 20_000 - others - 256, 256},
		{"a small server", 1024, 10, 10, 1024 - others - 10},
	} {
		cfg := Config{Capacity: c.capacity}
		capacity, handshaking, err := cfg.places(c.files)
		if err != nil || capacity != c.wantCapacity || handshaking != c.wantHandshaking {
			t.Errorf("%s: %d admitted and %d handshaking, %v; want %d and %d",
				c.name, capacity, handshaking, err, c.wantCapacity, c.wantHandshaking)
		}
		if sum := capacity + handshaking + others; sum > c.files {
			t.Errorf("%s: %d files of %d", c.name, sum, c.files)
		}
	}
	large := Config{
		Capacity: DefaultCapacity,
		Database: database.Config{MaxOpen: 1000},
		Redis:    cache.Config{PoolSize: 1000},
	}
	if capacity, _, err := large.places(20_000); err != nil || capacity != 20_000-256-2000-256 {
		t.Errorf("with large pools: %d, %v", capacity, err)
	}
	for _, files := range []int{0, 256, 560} {
		if _, _, err := (Config{Capacity: 1}).places(files); err == nil || !strings.Contains(err.Error(), "ulimit") {
			t.Errorf("%d files: %v", files, err)
		}
	}
}
