-- When each receiver last heard from its sender, and how that ended. Written a moment later than it happened, so that a
-- flood of requests is one write.
CREATE TABLE receivers (
    name         TEXT PRIMARY KEY NOT NULL,
    heard_at     INTEGER NOT NULL,
    outcome      TEXT NOT NULL,
    -- When a request last held an event that was stored.
    accepted_at  INTEGER
) STRICT;
