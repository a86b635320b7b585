package peer

import (
	relayv1 "github.com/msrchat/msrchat/proto/msrchat/relay/v1"
)

// Revision is the revision of relay.proto that this server has: from 1 on a server
// finds the members of a conversation by itself, from 2 on it tells and is told of new
// connections.
const (
	Revision         = 2
	tellsConnections = 2
)

// understood says whether a peer of some revision understands a delivery.
func understood(d *relayv1.Delivery, revision uint32) bool {
	switch d.GetWhat().(type) {
	case *relayv1.Delivery_Connected, *relayv1.Delivery_Compare:
		return revision >= tellsConnections
	}
	return revision > 0 || d.GetUserId() == 0 && d.GetOwnState() == nil
}

// What follows is for peers of revision 0, which deliver to the users that are named to
// them. The next release removes it.

// nameMembers adds the members to deliver to. This server has cached them when it
// checked that the sender is one of them.
func (l *link) nameMembers(r *relayv1.AppendRequest) {
	r.MemberIds = l.peers.opts.Members(r.GetConversationId())
}

// nameUsers returns copies with their users, because the deliveries are shared with
// other links.
func (l *link) nameUsers(deliveries []*relayv1.Delivery) []*relayv1.Delivery {
	out := make([]*relayv1.Delivery, len(deliveries))
	for i, d := range deliveries {
		conversation := max(d.GetEvent().GetConversationId(), d.GetHead().GetConversationId())
		out[i] = &relayv1.Delivery{
			UserIds:          l.peers.opts.Members(conversation),
			What:             d.GetWhat(),
			ExceptConnection: d.GetExceptConnection(),
		}
	}
	return out
}
