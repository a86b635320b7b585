-- A member's own state: own_state rises with each change of it, read_seq is how
-- far the member has read, read_ordinal the ordinal of that event. One ALTER adds
-- all of them or none.
ALTER TABLE members ADD COLUMN own_state BIGINT UNSIGNED NOT NULL DEFAULT 0,
  ADD COLUMN read_seq BIGINT UNSIGNED NOT NULL DEFAULT 0,
  ADD COLUMN read_ordinal BIGINT UNSIGNED NOT NULL DEFAULT 0
