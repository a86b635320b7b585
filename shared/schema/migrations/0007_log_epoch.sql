-- Random, so that clients of a database that was thrown away notice a new one.
INSERT IGNORE INTO facts (name, value) VALUES ('log_epoch', CAST(1 + FLOOR(RAND() * 9007199254740990) AS CHAR))
