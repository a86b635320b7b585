package client

import "testing"

// A server may tell numbers of more conversations than it lists.
func TestNumbersOfConversationsThatAreNotListedAreBounded(t *testing.T) {
	o := &owner{Client: &Client{}}
	o.own.newer = map[uint64]uint64{}
	o.sync.convs = map[uint64]*conv{1 << 40: {}}
	for id := range uint64(2 * maxUnknown) {
		o.learnOwn(id+1, 7)
	}
	if n := len(o.own.newer); n != maxUnknown {
		t.Errorf("%d are kept", n)
	}
	if o.learnOwn(1<<40, 7); o.own.newer[1<<40] != 7 {
		t.Error("one that is listed found no room")
	}
	if o.learnOwn(1, 9); o.own.newer[1] != 9 {
		t.Error("a number that is there was not raised")
	}
}
