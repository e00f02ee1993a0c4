-- Freezes that somebody has switched on for an environment. Those of the settings are not kept: the settings are.
CREATE TABLE freezes (
    id               TEXT PRIMARY KEY NOT NULL,
    environment      TEXT NOT NULL,
    reason           TEXT NOT NULL,
    actor            TEXT NOT NULL,
    created_at       INTEGER NOT NULL,
    -- When it ends by itself; NULL: never.
    expires_at       INTEGER,
    ended_at         INTEGER,
    ended_by         TEXT
) STRICT;

CREATE INDEX freezes_active ON freezes (environment) WHERE ended_at IS NULL;
