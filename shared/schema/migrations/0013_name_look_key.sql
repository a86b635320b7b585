-- Of two people who choose names that look the same, the second chooses another.
ALTER TABLE users ADD UNIQUE KEY uk_users_look (name_look)
