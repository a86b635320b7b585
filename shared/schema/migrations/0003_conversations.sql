-- A direct conversation is unique by its two users, the lower id first; other
-- kinds leave both NULL.
CREATE TABLE IF NOT EXISTS conversations (
  id         BIGINT UNSIGNED  NOT NULL AUTO_INCREMENT,
  kind       TINYINT UNSIGNED NOT NULL, -- 1 direct
  low_user   BIGINT UNSIGNED  NULL,
  high_user  BIGINT UNSIGNED  NULL,
  created_at BIGINT           NOT NULL,
  PRIMARY KEY (id),
  UNIQUE KEY uk_conversations_direct (low_user, high_user)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
