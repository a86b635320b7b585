-- The first event that is left of a conversation's log, once older ones were
-- removed; NULL means 1. The last event of a log is never removed.
ALTER TABLE conversations ADD COLUMN first_seq BIGINT UNSIGNED NULL
