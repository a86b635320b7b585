package client

// A person who was named while no server could be asked has a provisional
// conversation in the store. The first process of the profile that hears of the
// real one, by OpenDirect or by a list, has the store move everything there in one
// step; all find out by reading the moves. Whatever a process reads from the store
// of the real conversation, it takes over the move before it acts on that.

// initMoves leaves out what moved before.
func (o *owner) initMoves() error {
	moves, err := o.opt.Store.Moved(o.ctx, 0)
	if n := len(moves); n > 0 {
		o.moved = moves[n-1].Order
	}
	return err
}

// checkMoves takes over what moved since the last call.
func (o *owner) checkMoves() {
	if o.readMoves() {
		o.own.look() // a draft may have come along
		o.seeOwn()
	}
}

// readMoves is checkMoves without what the move did to own states; it says whether
// there was one.
func (o *owner) readMoves() bool {
	moves, err := o.opt.Store.Moved(o.disk, o.moved)
	if err != nil {
		o.log.Error("moves not read", "err", err)
		return false
	}
	for _, m := range moves {
		o.moved = m.Order
		o.outbox.move(m.From, m.To)
		o.own.move(m.From, m.To)
		o.first = append(o.first, ConversationResolved{From: m.From, To: m.To})
	}
	o.tellFirst()
	return len(moves) > 0
}
