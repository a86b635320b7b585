CREATE TABLE IF NOT EXISTS members (
  user_id         BIGINT UNSIGNED NOT NULL,
  conversation_id BIGINT UNSIGNED NOT NULL,
  joined_at       BIGINT          NOT NULL,
  PRIMARY KEY (user_id, conversation_id),
  KEY ix_members_conversation (conversation_id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
