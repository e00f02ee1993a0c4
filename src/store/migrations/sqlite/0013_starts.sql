-- How often the work on a row was started without an end, and how often of these nothing else ran: whether it ends the process.
ALTER TABLE events ADD COLUMN started_attempts INTEGER NOT NULL DEFAULT 0;
ALTER TABLE events ADD COLUMN alone_attempts INTEGER NOT NULL DEFAULT 0;
ALTER TABLE updates ADD COLUMN started_attempts INTEGER NOT NULL DEFAULT 0;
ALTER TABLE updates ADD COLUMN alone_attempts INTEGER NOT NULL DEFAULT 0;
