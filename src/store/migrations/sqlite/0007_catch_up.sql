-- Why there is an event: `push`, or `catch-up` where nobody told and the registry's list of tags did.
ALTER TABLE events ADD COLUMN cause TEXT NOT NULL DEFAULT 'push';

-- Which tags of a repository have been seen in the registry's list. Tags that a webhook told of are in `events`, and once
-- they have been listed here, too, so that events can be forgotten.
CREATE TABLE catch_up (
    repository       TEXT PRIMARY KEY NOT NULL,
    listed_at        INTEGER NOT NULL,
    -- Eight bytes of the SHA-256 of each tag, sorted: 8 kB for 1,000 tags.
    seen             BLOB NOT NULL,
    -- Where one tag is followed by its digest: the last one.
    digest           TEXT
) STRICT, WITHOUT ROWID;
