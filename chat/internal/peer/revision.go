package peer

import (
	relayv1 "github.com/msrchat/msrchat/proto/msrchat/relay/v1"
)

// Revision is what this server understands, see relay.proto: from 1 on it finds
// the members of a conversation by itself.
const Revision = 1

// What follows is for peers of the release before, revision 0, which deliver to
// the users that are named to them. It goes with the next release.

// understood says whether a peer of revision 0 knows what a delivery says: all
// but own states.
func understood(d *relayv1.Delivery) bool { return d.GetUserId() == 0 && d.GetOwnState() == nil }

// nameMembers adds who is to be delivered to. The sender's server has checked
// that the sender takes part, so it knows the members.
func (l *link) nameMembers(r *relayv1.AppendRequest) {
	r.MemberIds = l.peers.opts.Members(r.GetConversationId())
}

// nameUsers returns deliveries with their users; the given ones are shared with
// other links.
func (l *link) nameUsers(deliveries []*relayv1.Delivery) []*relayv1.Delivery {
	out := make([]*relayv1.Delivery, len(deliveries))
	for i, d := range deliveries {
		conversation := max(d.GetEvent().GetConversationId(), d.GetHead().GetConversationId())
		out[i] = &relayv1.Delivery{
			UserIds: l.peers.opts.Members(conversation), What: d.GetWhat(), ExceptConnection: d.GetExceptConnection(),
		}
	}
	return out
}
