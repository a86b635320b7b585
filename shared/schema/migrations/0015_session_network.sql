-- Where a log-in came from, as a MAC under facts.session_key; NULL if an older gate
-- wrote the row. Wrong passwords of others do not lock out people who come from there.
ALTER TABLE sessions ADD COLUMN network BINARY(8) NULL
