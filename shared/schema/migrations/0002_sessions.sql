-- One row per log-in. Only the SHA-256 of a token is stored. A revocation is a
-- time in revoked_at, so that chat servers see it by session id.
CREATE TABLE IF NOT EXISTS sessions (
  id         BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  token_hash BINARY(32)      NOT NULL,
  user_id    BIGINT UNSIGNED NOT NULL,
  device     VARCHAR(128)    NOT NULL,
  created_at BIGINT          NOT NULL,
  expires_at BIGINT          NOT NULL,
  revoked_at BIGINT          NULL,
  PRIMARY KEY (id),
  UNIQUE KEY uk_sessions_token (token_hash),
  KEY ix_sessions_user (user_id, device)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
