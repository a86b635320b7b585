-- Where the log of a conversation begins, once a policy has removed what was
-- before; NULL: at 1. The last event of a log is never removed.
ALTER TABLE conversations ADD COLUMN first_seq BIGINT UNSIGNED NULL
