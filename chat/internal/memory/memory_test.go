package memory

import "testing"

func TestMemoryIsGivenBackByAQuietServer(t *testing.T) {
	const mb = 1 << 20
	w := trimmer{work: 1 << 63, least: 20 * mb} // counts wrap around
	for i, step := range []struct {
		done, heap uint64
		due        bool
	}{
		{5000, 100 * mb, false}, // many connect
		{20, 100 * mb, true},
		{20, 90 * mb, true}, // the test does not collect, so it is still due
		{20, 35 * mb, false},
		{20, 10 * mb, false}, // the runtime collected by itself
		{20, 25 * mb, false},
		{20, 26 * mb, true},
	} {
		if due := w.due(w.work+step.done, step.heap); due != step.due {
			t.Errorf("step %d: %v", i, due)
		}
	}
	if heap() == 0 {
		t.Error("the heap is empty")
	}
}
