-- The logs. The primary key keeps each dense, uk_events_idem keeps a message
-- that was sent twice single. The last row of a log is never deleted; see
-- chat/internal/msglog.
CREATE TABLE IF NOT EXISTS events (
  conversation_id BIGINT UNSIGNED  NOT NULL,
  seq             BIGINT UNSIGNED  NOT NULL,
  sender_id       BIGINT UNSIGNED  NOT NULL,
  client_msg_id   BINARY(16)       NOT NULL,
  kind            TINYINT UNSIGNED NOT NULL,
  body            MEDIUMBLOB       NOT NULL,
  created_at      BIGINT           NOT NULL,
  PRIMARY KEY (conversation_id, seq),
  UNIQUE KEY uk_events_idem (conversation_id, sender_id, client_msg_id)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
