package route

import "testing"

// A route that was read before a user had a new connection is not remembered after it.
func TestWhatWasReadBeforeItWasForgottenIsNotKept(t *testing.T) {
	t.Parallel()
	var m memory
	_, rest, mark := m.recall([]uint64{1, 2})
	if len(rest) != 2 {
		t.Fatalf("an empty memory lacks %v", rest)
	}
	if m.forget(2) {
		t.Error("used what was never there")
	}
	m.store(rest, nil, mark)
	if _, rest, mark = m.recall(rest); len(rest) != 2 {
		t.Errorf("kept what was read before: all but %v", rest)
	}
	m.store(rest, nil, mark)
	if _, rest, _ = m.recall(rest); len(rest) != 0 {
		t.Errorf("not kept: %v", rest)
	}
}

// Somebody whose routes were used a moment ago was used lately, for each server that tells of
// a connection, and not for ever.
func TestUsedLately(t *testing.T) {
	t.Parallel()
	var m memory
	pass := func() {
		m.began = m.began.Add(-2 * rememberTime)
		if _, rest, _ := m.recall([]uint64{1}); len(rest) != 1 {
			t.Error("what is old is still used")
		}
	}
	_, rest, mark := m.recall([]uint64{1})
	m.store(rest, map[uint64][]Place{1: {{Instance: "b"}}}, mark)
	if at, _, _ := m.recall([]uint64{1}); len(at[1]) != 1 {
		t.Fatalf("remembers %v", at)
	}
	for _, server := range []string{"first", "second"} {
		if !m.forget(1) {
			t.Errorf("it was used, and the %s server that tells of a connection is not told so", server)
		}
	}
	pass()
	if !m.forget(1) {
		t.Error("it was used lately")
	}
	pass()
	if m.forget(1) {
		t.Error("it was used long ago")
	}
}

func TestTheMemoryOfRoutesIsBounded(t *testing.T) {
	t.Parallel()
	var m memory
	users := make([]uint64, maxRemembered+5)
	for i := range users {
		users[i] = uint64(i + 1)
	}
	_, rest, mark := m.recall(users)
	m.store(rest, nil, mark)
	if _, rest, _ = m.recall(users); len(rest) != 5 {
		t.Errorf("%d of %d are not remembered, want 5", len(rest), len(users))
	}
}
