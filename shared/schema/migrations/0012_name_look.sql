-- A hash of how the name looks (text.Look); NULL for an account made by an older
-- binary, until the next run of migrate, and for one that looks like an older account.
ALTER TABLE users ADD COLUMN name_look BINARY(32) NULL
