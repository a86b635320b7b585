package testenv

import (
	"testing"
	"time"
)

// Patience bounds every wait of a test for something that has to happen: long
// enough for a busy machine, since nobody waits for it when all is well.
const Patience = 60 * time.Second

// Until polls until a condition holds; it fails the test when that takes longer
// than Patience.
func Until(t testing.TB, what string, done func() bool) {
	t.Helper()
	deadline := time.NewTimer(Patience)
	defer deadline.Stop()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for !done() {
		select {
		case <-ticker.C:
		case <-deadline.C:
			t.Fatalf("waited %v for: %s", Patience, what)
		}
	}
}
