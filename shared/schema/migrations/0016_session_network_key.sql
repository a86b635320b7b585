-- One look-up for each log-in.
ALTER TABLE sessions ADD KEY ix_sessions_network (user_id, network)
