package chat

import (
	"os"
	"regexp"
	"strconv"
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
		capacity, handshaking, err := cfg.places(c.files, 0)
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
	if capacity, _, err := large.places(20_000, 0); err != nil || capacity != 20_000-256-2000-256 {
		t.Errorf("with large pools: %d, %v", capacity, err)
	}
	for _, files := range []int{0, 256, 560} {
		if _, _, err := (Config{Capacity: 1}).places(files, 0); err == nil || !strings.Contains(err.Error(), "ulimit") {
			t.Errorf("%d files: %v", files, err)
		}
	}
}

func TestPlacesFitTheMemory(t *testing.T) {
	t.Parallel()
	const none = ProgramMemory + BoundMemory
	for memory, want := range map[int64]int{
		none + DefaultCapacity*ConnMemory:     DefaultCapacity,
		none + 1000*ConnMemory + ConnMemory/2: 1000,
		none + ConnMemory:                     1,
	} {
		cfg := Config{Capacity: DefaultCapacity}
		if capacity, _, err := cfg.places(20_000, memory); err != nil || capacity != want {
			t.Errorf("%d MiB: capacity %d, %v; want %d", memory>>20, capacity, err, want)
		}
	}
	if _, _, err := (Config{Capacity: 1}).places(20_000, none); err == nil || !strings.Contains(err.Error(), "GOMEMLIMIT") {
		t.Errorf("no memory for a connection: %v", err)
	}
}

// The job gives a server the memory that its bounds take together.
func TestTheJobsMemoryFitsTheBounds(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../nomad/chat.nomad.hcl")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`go_memory = ([0-9]+) \+ ceil\(var\.capacity / ([0-9]+)\)`).FindStringSubmatch(string(text))
	if m == nil {
		t.Fatal("the job does not say how much memory it gives")
	}
	fixed, _ := strconv.Atoi(m[1])
	perMiB, _ := strconv.Atoi(m[2])
	if fixed<<20 != ProgramMemory+BoundMemory || (1<<20)/perMiB != ConnMemory {
		t.Errorf("the job has %d MiB and one for each %d connections; the bounds take %d, and one for %d",
			fixed, perMiB, (ProgramMemory+BoundMemory)>>20, (1<<20)/ConnMemory)
	}
	if !strings.Contains(string(text), "${local.go_memory}MiB") {
		t.Error("the job does not tell the program")
	}
}
