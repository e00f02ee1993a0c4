-- What becomes of a committed update in Argo CD: one row for each, made in the transaction that ends the update.
CREATE TABLE follow_ups (
    update_id        TEXT PRIMARY KEY NOT NULL,
    environment      TEXT NOT NULL,
    commit_id        TEXT NOT NULL,
    state            TEXT NOT NULL,
    reason           TEXT,
    started_at       INTEGER NOT NULL,
    ended_at         INTEGER,
    -- The applications that the update touches, with what each has come to: JSON.
    applications     TEXT NOT NULL DEFAULT '[]'
) STRICT;

CREATE INDEX follow_ups_open ON follow_ups (update_id) WHERE ended_at IS NULL;

-- How the applications of each environment fare, and since when they have been healthy without a break.
CREATE TABLE application_health (
    environment      TEXT NOT NULL,
    application      TEXT NOT NULL,
    sync             TEXT NOT NULL,
    health           TEXT NOT NULL,
    message          TEXT,
    healthy_since    INTEGER,
    observed_at      INTEGER NOT NULL,
    PRIMARY KEY (environment, application)
) STRICT;

-- What stood in the way of a promotion that was made all the same, and why it was.
ALTER TABLE requests ADD COLUMN overridden TEXT;
ALTER TABLE updates ADD COLUMN override_reason TEXT;
