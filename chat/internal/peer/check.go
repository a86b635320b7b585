package peer

import (
	"math"
	"slices"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	relayv1 "github.com/msrchat/msrchat/proto/msrchat/relay/v1"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/text"

	"github.com/msrchat/msrchat/chat/internal/kind"
)

// What peers send is checked like what clients send: a peer may be broken, and what it
// sends is shown to people.

// check says what is wrong with a request, nil if nothing is.
func check(r *relayv1.AppendRequest) *errs.Error {
	if n := len(r.GetEntries()); n == 0 || n > maxEntries {
		return errs.New(errs.CodeInvalid, "an append of that size is not allowed")
	}
	for _, e := range r.GetEntries() {
		if len(e.GetClientMsgId()) != 16 || e.GetSenderId() == 0 || e.GetKind() > math.MaxUint8 {
			return errs.New(errs.CodeInvalid, "an entry without sender or message id, or of an impossible kind")
		}
	}
	return nil
}

// acceptable are the deliveries of a frame without those that nobody may be shown.
func (p *Peers) acceptable(f *relayv1.DeliverRequest) []*relayv1.Delivery {
	all := f.GetDeliveries()
	bad := func(d *relayv1.Delivery) bool { return checkDelivery(d) != nil }
	first := slices.IndexFunc(all, bad)
	if first < 0 {
		return all
	}
	p.opts.Logger.Warn("delivery refused", "from", f.GetInstance(), "err", checkDelivery(all[first]))
	return slices.DeleteFunc(all, bad)
}

var (
	errNoUser  = errs.New(errs.CodeInvalid, "a connection of nobody")
	errNoEvent = errs.New(errs.CodeInvalid, "an event without conversation, number, sender or message id")
)

// checkDelivery says what is wrong with a delivery, nil if nothing is.
func checkDelivery(d *relayv1.Delivery) error {
	switch what := d.GetWhat().(type) {
	case *relayv1.Delivery_Event:
		return checkEvent(what.Event)
	case *relayv1.Delivery_OwnState:
		return text.Draft(what.OwnState.GetDraft().GetText())
	case *relayv1.Delivery_Connected, *relayv1.Delivery_Compare:
		if d.GetUserId() == 0 {
			return errNoUser
		}
	}
	return nil
}

func checkEvent(e *chatv1.Event) error {
	if e.GetConversationId() == 0 || e.GetSeq() == 0 || e.GetSenderId() == 0 || len(e.GetClientMsgId()) != 16 {
		return errNoEvent
	}
	return kind.CheckRelayed(e.GetKind(), e.GetBody())
}
