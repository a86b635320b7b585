INSERT IGNORE INTO facts (name, value) VALUES ('log_epoch', '1')
