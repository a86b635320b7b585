package demo

import (
	"slices"
	"strings"
	"testing"
)

// whole is a conversation in which ann typed two texts by the director, ben one,
// and somebody one by hand.
func whole() conversation {
	log := []line{{1, "ann", "one"}, {2, "ben", "two"}, {3, "ben", "by hand"}, {4, "ann", "three"}}
	all := func() map[string][]line { return map[string][]line{"ann": slices.Clone(log), "ben": slices.Clone(log)} }
	return conversation{
		typed: map[string][]string{"ann": {"one", "three"}, "ben": {"two"}}, acked: map[string][]uint64{"ann": {1, 4}, "ben": {2}},
		history: all(), shown: all(),
	}
}

func TestCompare(t *testing.T) {
	if o := whole().compare("ann", "ben"); len(o.Problems) > 0 || o.Logged != 4 || o.Typed != 3 || o.ByHand != 1 || o.Acknowledged != 3 {
		t.Errorf("a whole conversation: %+v", o)
	}
	more := whole() // typed by hand after ann's history was read
	more.history["ben"] = append(more.history["ben"], line{5, "ben", "late"})
	more.shown["ann"] = append(more.shown["ann"], line{5, "ben", "late"})
	if o := more.compare("ann", "ben"); len(o.Problems) > 0 {
		t.Errorf("a message that came later: %+v", o)
	}
	for name, c := range map[string]struct {
		spoil func(*conversation)
		want  string
	}{
		"lost": {func(c *conversation) {
			for _, name := range []string{"ann", "ben"} {
				c.history[name], c.shown[name] = c.history[name][:3], c.shown[name][:3]
			}
		}, `ann typed "three", which is in the log 0 times`},
		"doubled": {func(c *conversation) {
			for _, name := range []string{"ann", "ben"} {
				c.history[name] = append(c.history[name], line{5, "ann", "one"})
				c.shown[name] = append(c.shown[name], line{5, "ann", "one"})
			}
		}, `ann typed "one", which is in the log 2 times`},
		"reordered":       {func(c *conversation) { c.typed["ann"] = []string{"three", "one"}; c.acked["ann"] = nil }, `ann typed "one" after`},
		"renumbered":      {func(c *conversation) { c.acked["ben"] = []uint64{3} }, `"two" was acknowledged to ben as number 3 and stands at 2`},
		"a gap":           {func(c *conversation) { c.history["ann"][3].Seq = 5 }, "the log has number 5 at place 4"},
		"a stranger":      {func(c *conversation) { c.history["ann"][2].From = "eve" }, "number 3 is from eve"},
		"shown twice":     {func(c *conversation) { c.shown["ben"] = slices.Insert(c.shown["ben"], 1, c.shown["ben"][0]) }, "ben's screen has number 1"},
		"not shown":       {func(c *conversation) { c.shown["ann"] = c.shown["ann"][:2] }, "ann's screen ends at number 2 of 4"},
		"shorter history": {func(c *conversation) { c.history["ben"] = c.history["ben"][:3] }, "ben's history has 3 messages, ann's 4"},
		"other histories": {func(c *conversation) { c.history["ben"][1].Text = "too" }, `ben's history has number 2 ("too")`},
	} {
		spoilt := whole()
		c.spoil(&spoilt)
		if o := spoilt.compare("ann", "ben"); !strings.Contains(strings.Join(o.Problems, "\n"), c.want) {
			t.Errorf("%s: %q is not among %q", name, c.want, o.Problems)
		}
	}
}
