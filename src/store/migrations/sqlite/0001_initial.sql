-- Times are milliseconds since the Unix epoch. Ids are ULIDs: they sort by the order in which the rows were written.

-- What registries said happened. Never deleted by the pipeline; `state` tells how far it came.
CREATE TABLE events (
    id               TEXT PRIMARY KEY NOT NULL,
    receiver         TEXT NOT NULL,
    registry         TEXT NOT NULL,
    repository       TEXT NOT NULL,
    tag              TEXT NOT NULL,
    announced_digest TEXT,
    pushed_at        INTEGER,
    received_at      INTEGER NOT NULL,
    duplicate_key    TEXT NOT NULL,
    state            TEXT NOT NULL,
    reason           TEXT,
    -- 1: the same delivery may run again, because it was refused for something that passes.
    redeliverable    INTEGER NOT NULL DEFAULT 0,
    matched_rule     TEXT,
    verified_digest  TEXT,
    verified_at      INTEGER,
    note             TEXT,
    attempts         INTEGER NOT NULL DEFAULT 0,
    next_attempt_at  INTEGER,
    finished_at      INTEGER
) STRICT;

CREATE INDEX events_by_duplicate_key ON events (duplicate_key, id);
CREATE INDEX events_by_repository ON events (repository, id);
CREATE INDEX events_by_state ON events (state, id);
CREATE INDEX events_due ON events (registry, next_attempt_at, id) WHERE state = 'queued';

-- Promotions and rollbacks: what a person or a gate asked for.
CREATE TABLE requests (
    id               TEXT PRIMARY KEY NOT NULL,
    kind             TEXT NOT NULL,
    environment      TEXT NOT NULL,
    source           TEXT,
    actor            TEXT NOT NULL,
    reason           TEXT,
    idempotency_key  TEXT,
    fingerprint      TEXT NOT NULL,
    created_at       INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX requests_by_idempotency_key ON requests (actor, idempotency_key) WHERE idempotency_key IS NOT NULL;

-- "Environment E shall run version V of repository R, because C."
CREATE TABLE updates (
    id               TEXT PRIMARY KEY NOT NULL,
    environment      TEXT NOT NULL,
    registry         TEXT NOT NULL,
    repository       TEXT NOT NULL,
    tag              TEXT,
    digest           TEXT,
    cause            TEXT NOT NULL,
    -- The event or the request. Its ULID is the order of arrival.
    cause_id         TEXT NOT NULL,
    actor            TEXT NOT NULL,
    state            TEXT NOT NULL,
    reason           TEXT,
    attempts         INTEGER NOT NULL DEFAULT 0,
    next_attempt_at  INTEGER,
    pushed_at        INTEGER,
    received_at      INTEGER NOT NULL,
    -- While `pending`: the commit of the last attempt, of which it is not known whether it reached the branch.
    commit_id        TEXT,
    old_tag          TEXT,
    old_digest       TEXT,
    changes          TEXT,
    finished_at      INTEGER
) STRICT;

CREATE INDEX updates_by_cause ON updates (cause_id);
CREATE INDEX updates_by_place ON updates (environment, repository, cause_id);
-- One for each question: SQLite takes a partial index only where the question holds the very same term.
CREATE INDEX updates_pending ON updates (cause_id, id) WHERE state = 'pending';
CREATE INDEX updates_waiting ON updates (cause_id, id) WHERE state = 'waiting';
CREATE INDEX updates_due ON updates (registry, next_attempt_at, id) WHERE state = 'unverified';
CREATE INDEX updates_committed ON updates (finished_at, id) WHERE state = 'committed';
CREATE INDEX updates_committed_by_place ON updates (environment, repository, finished_at, id) WHERE state = 'committed';

-- Pins on (environment, repository) that automation respects until they are released or expire.
CREATE TABLE holds (
    id               TEXT PRIMARY KEY NOT NULL,
    environment      TEXT NOT NULL,
    repository       TEXT NOT NULL,
    reason           TEXT,
    actor            TEXT NOT NULL,
    -- The rollback that made it.
    request_id       TEXT,
    created_at       INTEGER NOT NULL,
    expires_at       INTEGER,
    released_at      INTEGER,
    released_by      TEXT
) STRICT;

CREATE INDEX holds_active ON holds (environment, repository) WHERE released_at IS NULL;
