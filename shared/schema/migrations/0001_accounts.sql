-- name_key and email_key are canonical forms made by shared/text; comparing
-- bytes makes MySQL and MariaDB agree on what is equal.
CREATE TABLE IF NOT EXISTS users (
  id            BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  name          VARCHAR(64)     NOT NULL,
  name_key      VARBINARY(256)  NOT NULL,
  email         VARCHAR(254)    NOT NULL,
  email_key     VARBINARY(254)  NOT NULL,
  password_hash VARBINARY(255)  NOT NULL,
  created_at    BIGINT          NOT NULL, -- Unix milliseconds, as every time here
  PRIMARY KEY (id),
  UNIQUE KEY uk_users_name (name_key),
  UNIQUE KEY uk_users_email (email_key)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
