package client

// A person who was named while no server could be asked has a provisional
// conversation in the store. The first process of the profile that learns of the
// real one, by OpenDirect or by a list, has the store move everything there in one
// step; all processes learn of it by reading the moves. A process applies the move
// before it uses anything that it has read of the real conversation.

// initMoves skips earlier moves.
func (o *owner) initMoves() error {
	moves, err := o.opt.Store.Moved(o.ctx, 0)
	if n := len(moves); n > 0 {
		o.moved = moves[n-1].Order
	}
	return err
}

// checkMoves applies the moves since the last call.
func (o *owner) checkMoves() {
	if o.readMoves() {
		o.own.look() // a draft may have moved, too
		o.followOwn()
	}
}

// readMoves is checkMoves without own states; it says whether there was a move.
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
	o.notifyFirst()
	return len(moves) > 0
}
