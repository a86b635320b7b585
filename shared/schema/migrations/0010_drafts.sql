-- What a person has begun to write in a conversation. number is that of the own
-- state (members.own_state) which brought the text.
CREATE TABLE IF NOT EXISTS drafts (
  user_id         BIGINT UNSIGNED NOT NULL,
  conversation_id BIGINT UNSIGNED NOT NULL,
  body            MEDIUMBLOB      NOT NULL,
  edited_at       BIGINT          NOT NULL,
  number          BIGINT UNSIGNED NOT NULL,
  PRIMARY KEY (user_id, conversation_id)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
