-- How many events up to this one are counted as unread messages; NULL, as an
-- older binary writes it: all of them.
ALTER TABLE events ADD COLUMN ordinal BIGINT UNSIGNED NULL
