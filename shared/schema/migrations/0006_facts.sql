-- Single values. log_epoch changes when the logs lost a tail (a restore).
CREATE TABLE IF NOT EXISTS facts (
  name  VARCHAR(64)    NOT NULL,
  value VARBINARY(255) NOT NULL,
  PRIMARY KEY (name)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
