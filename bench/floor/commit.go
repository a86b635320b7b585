package floor

import (
	"context"
	"database/sql"
	"encoding/hex"
	"fmt"
	"strconv"
	"sync"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/content"
)

const (
	// maxBatch is the message log's own limit of a batch.
	maxBatch = 512
	// queueLen is more than all clients of a measurement have outstanding; a full
	// queue blocks the client's reader.
	queueLen = 1 << 17
	// ddlTimeout bounds the making and dropping of a table.
	ddlTimeout = time.Minute
)

// Tables of the floors, in the fleet's own database: the service's user may create
// tables nowhere else.
const (
	tableDB0    = "bench_floor_db0"
	tableSchema = "bench_floor_schema"
)

// message is one Send under way.
type message struct {
	server  *Server
	from    *conn
	request uint64
	send    *chatv1.Send
	seq     uint64
}

// committer stores batches, each of what waits when the one before is committed.
// run is its goroutine, which owns seqs and text.
type committer struct {
	kind  Kind
	db    *sql.DB
	queue chan *message
	// flushing are the goroutines that write acknowledgements and events.
	flushing sync.WaitGroup

	seqs map[uint64]uint64
	text []byte
}

func newCommitter(ctx context.Context, db *sql.DB, kind Kind) (*committer, error) {
	ctx, cancel := context.WithTimeout(ctx, ddlTimeout)
	defer cancel()
	c := &committer{kind: kind, db: db, queue: make(chan *message, queueLen), seqs: make(map[uint64]uint64)}
	create := "CREATE TABLE " + tableSchema + " LIKE events"
	if kind == DB0 {
		create = "CREATE TABLE " + tableDB0 + " (id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY," +
			" conversation_id BIGINT UNSIGNED NOT NULL, sender_id BIGINT UNSIGNED NOT NULL," +
			" body MEDIUMBLOB NOT NULL, created_at BIGINT NOT NULL) ENGINE=InnoDB"
	}
	if err := c.drop(ctx); err != nil {
		return nil, err
	}
	if _, err := db.ExecContext(ctx, create); err != nil {
		return nil, fmt.Errorf("create the floor's table: %w", err)
	}
	return c, nil
}

func (c *committer) table() string {
	if c.kind == DB0 {
		return tableDB0
	}
	return tableSchema
}

// drop drops the table, if there is one.
func (c *committer) drop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, ddlTimeout)
	defer cancel()
	if _, err := c.db.ExecContext(ctx, "DROP TABLE IF EXISTS "+c.table()); err != nil {
		return fmt.Errorf("drop the floor's table: %w", err)
	}
	return nil
}

// add queues a message; it blocks its client while too many wait.
func (c *committer) add(m *message) { c.queue <- m }

// stop lets run end when the queue is empty. Nothing may be added any more.
func (c *committer) stop() { close(c.queue) }

// run commits until stop. After an error it drops what is queued, so that no
// client's reader is blocked.
func (c *committer) run() error {
	defer c.flushing.Wait()
	var failure error
	batch := make([]*message, 0, maxBatch)
	for {
		first, ok := <-c.queue
		if !ok {
			return failure
		}
		batch = c.fill(append(batch[:0], first))
		if failure != nil {
			continue
		}
		if failure = c.commit(batch); failure != nil {
			continue
		}
		c.publish(batch)
	}
}

// fill adds what waits.
func (c *committer) fill(batch []*message) []*message {
	for len(batch) < maxBatch {
		select {
		case m, ok := <-c.queue:
			if !ok {
				return batch // run finds the closed queue again
			}
			batch = append(batch, m)
		default:
			return batch
		}
	}
	return batch
}

func (c *committer) commit(batch []*message) error {
	now := time.Now().UnixMilli()
	columns := " (conversation_id,seq,ordinal,sender_id,client_msg_id,kind,body,created_at) VALUES "
	if c.kind == DB0 {
		columns = " (conversation_id,sender_id,body,created_at) VALUES "
	}
	c.text = append(append(append(c.text[:0], "INSERT INTO "...), c.table()...), columns...)
	for i, m := range batch {
		id := m.send.GetConversationId()
		c.seqs[id]++
		m.seq = c.seqs[id]
		if i > 0 {
			c.text = append(c.text, ',')
		}
		c.text = append(c.text, '(')
		c.text = appendUint(c.text, id)
		if c.kind == Schema {
			c.text = appendUint(appendUint(c.text, m.seq), m.seq) // every message counts as unread
		}
		c.text = appendUint(c.text, m.from.user)
		if c.kind == Schema {
			c.text = append(appendHex(c.text, m.send.GetClientMsgId()), ',')
			c.text = appendUint(c.text, content.Text)
		}
		c.text = append(appendHex(c.text, m.send.GetBody()), ',')
		c.text = append(strconv.AppendInt(c.text, now, 10), ')')
	}
	// Serve waits for this when it ends: the driver's own limits bound it.
	if _, err := c.db.ExecContext(context.Background(), string(c.text)); err != nil {
		return fmt.Errorf("floor %s: %w", c.kind, err)
	}
	return nil
}

// publish acknowledges and relays a batch. Other goroutines write it, so that the
// next commit does not wait for that.
func (c *committer) publish(batch []*message) {
	touched := make(map[*conn]struct{}, 2*len(batch))
	for _, m := range batch {
		for _, to := range m.server.relay(m.from, m.request, m.send, m.seq) {
			touched[to] = struct{}{}
		}
	}
	for to := range touched {
		c.flushing.Go(to.out.flush)
	}
}

func appendUint(b []byte, v uint64) []byte { return append(strconv.AppendUint(b, v, 10), ',') }

func appendHex(b, v []byte) []byte { return append(hex.AppendEncode(append(b, 'x', '\''), v), '\'') }
