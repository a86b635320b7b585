package msglog

import (
	"encoding/hex"
	"strconv"
)

// The statements are built as text, because their shape differs with every batch,
// and a prepared statement would cost two more round trips. Every value is a decimal
// number or a hexadecimal literal, so there is nothing to escape.

const (
	insertHead = "INSERT INTO events" +
		" (conversation_id,seq,ordinal,sender_id,client_msg_id,kind,body,created_at) VALUES "
	lookUpHead = "SELECT conversation_id,sender_id,client_msg_id,seq,COALESCE(ordinal,seq),kind,body,created_at" +
		" FROM events WHERE (conversation_id,sender_id,client_msg_id) IN ("
)

func appendInsert(b []byte, rows []*row, now int64) []byte {
	b = append(b, insertHead...)
	for i, r := range rows {
		e := r.event()
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '(')
		b = appendUint(b, r.req.conversation)
		b = appendUint(b, r.seq)
		b = appendUint(b, r.ordinal)
		b = appendUint(b, e.Sender)
		b = append(appendHex(b, e.ID[:]), ',')
		b = appendUint(b, uint64(e.Kind))
		b = append(appendHex(b, e.Body), ',')
		b = append(strconv.AppendInt(b, now, 10), ')')
	}
	return b
}

func appendLookUp(b []byte, rows []*row) []byte {
	b = append(b, lookUpHead...)
	for i, r := range rows {
		e := r.event()
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '(')
		b = appendUint(b, r.req.conversation)
		b = appendUint(b, e.Sender)
		b = append(appendHex(b, e.ID[:]), ')')
	}
	return append(b, ')')
}

// appendEnds asks for the last event of each conversation, which is one backward
// step in the primary key. GROUP BY may read whole conversations, and so does the
// index that the optimiser would choose, the narrower idempotency index, and TiDB if
// it is not asked for the key's own order.
func appendEnds(b []byte, ids []uint64) []byte { return appendEachEnd(b, ids, "") }

// appendLockEnds also keeps other writers from appending.
func appendLockEnds(b []byte, ids []uint64) []byte { return appendEachEnd(b, ids, " FOR UPDATE") }

func appendEachEnd(b []byte, ids []uint64, lock string) []byte {
	for i, id := range ids {
		if i > 0 {
			b = append(b, " UNION ALL "...)
		}
		b = append(b, "(SELECT conversation_id,seq,COALESCE(ordinal,seq) FROM events FORCE INDEX (PRIMARY)"+
			" WHERE conversation_id="...)
		b = strconv.AppendUint(b, id, 10)
		b = append(b, " ORDER BY conversation_id DESC,seq DESC LIMIT 1"...)
		b = append(append(b, lock...), ')')
	}
	return b
}

func appendLockConversations(b []byte, ids []uint64) []byte {
	b = append(b, "SELECT id FROM conversations WHERE id IN ("...)
	for i, id := range ids {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, id, 10)
	}
	return append(b, ") ORDER BY id FOR UPDATE"...)
}

// appendUint appends a number and a comma.
func appendUint(b []byte, v uint64) []byte {
	return append(strconv.AppendUint(b, v, 10), ',')
}

func appendHex(b, v []byte) []byte {
	b = append(b, 'x', '\'')
	b = hex.AppendEncode(b, v)
	return append(b, '\'')
}
