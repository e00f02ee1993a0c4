-- The schema of SQLite's last migration. Times are milliseconds since the Unix epoch. Ids are ULIDs: they sort by the order in
-- which the rows were written, which needs byte order.

-- Announcements of registries.
CREATE TABLE events (
    id               TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    -- `push`, or `catch-up` if the registry's list of tags showed the tag.
    cause            TEXT NOT NULL,
    receiver         TEXT NOT NULL,
    registry         TEXT COLLATE "C" NOT NULL,
    repository       TEXT COLLATE "C" NOT NULL,
    tag              TEXT COLLATE "C" NOT NULL,
    announced_digest TEXT,
    pushed_at        BIGINT,
    received_at      BIGINT NOT NULL,
    duplicate_key    TEXT COLLATE "C" NOT NULL,
    state            TEXT NOT NULL,
    reason           TEXT,
    -- 1: the same delivery runs again, because the reason of its refusal may have passed.
    redeliverable    BIGINT NOT NULL DEFAULT 0,
    matched_rule     TEXT,
    verified_digest  TEXT,
    verified_at      BIGINT,
    note             TEXT,
    failures         BIGINT NOT NULL DEFAULT 0,
    next_attempt_at  BIGINT,
    finished_at      BIGINT,
    -- The trace, as the `traceparent` header writes it (https://www.w3.org/TR/trace-context/).
    trace_parent     TEXT NOT NULL,
    -- How often the work on it was started without an end, and how often of these nothing else ran.
    started_attempts BIGINT NOT NULL DEFAULT 0,
    alone_attempts   BIGINT NOT NULL DEFAULT 0
);

CREATE INDEX events_by_duplicate_key ON events (duplicate_key, id);
CREATE INDEX events_by_repository ON events (repository, id);
CREATE INDEX events_by_state ON events (state, id);
CREATE INDEX events_due ON events (state, registry, next_attempt_at, id) WHERE finished_at IS NULL;
CREATE INDEX events_by_end ON events (state, id) WHERE finished_at IS NOT NULL;
CREATE INDEX events_announced ON events (verified_digest, repository, id) WHERE verified_digest IS NOT NULL;

-- Promotions and rollbacks.
CREATE TABLE requests (
    id               TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    kind             TEXT NOT NULL,
    environment      TEXT NOT NULL,
    source           TEXT,
    actor            TEXT NOT NULL,
    reason           TEXT,
    idempotency_key  TEXT,
    fingerprint      TEXT NOT NULL,
    created_at       BIGINT NOT NULL,
    trace_parent     TEXT NOT NULL,
    -- The freeze or closed gate that it passes.
    overridden       TEXT
);

CREATE UNIQUE INDEX requests_by_idempotency_key ON requests (actor, idempotency_key) WHERE idempotency_key IS NOT NULL;

-- "Environment E shall run version V of repository R, because C."
CREATE TABLE updates (
    id               TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    environment      TEXT COLLATE "C" NOT NULL,
    registry         TEXT COLLATE "C" NOT NULL,
    repository       TEXT COLLATE "C" NOT NULL,
    tag              TEXT,
    digest           TEXT,
    cause            TEXT NOT NULL,
    -- The event or the request. Its ULID is the order of arrival.
    cause_id         TEXT COLLATE "C" NOT NULL,
    actor            TEXT NOT NULL,
    state            TEXT NOT NULL,
    reason           TEXT,
    failures         BIGINT NOT NULL DEFAULT 0,
    next_attempt_at  BIGINT,
    pushed_at        BIGINT,
    received_at      BIGINT NOT NULL,
    -- The commit on the branch, what the environment ran before, and the edited sites as JSON.
    commit_id        TEXT,
    old_tag          TEXT,
    old_digest       TEXT,
    changes          TEXT,
    finished_at      BIGINT,
    -- The criterion that decided about the order, and the comparison in words.
    decided_by       TEXT,
    decided_because  TEXT,
    -- What the environment ran when a promotion or rollback was requested, as JSON.
    compared         TEXT,
    trace_parent     TEXT NOT NULL,
    -- When its last wait cause ended.
    released_at      BIGINT,
    override_reason  TEXT,
    -- 1: its event was replayed, and the update no longer counts among those of the event.
    replayed         BIGINT NOT NULL DEFAULT 0,
    started_attempts BIGINT NOT NULL DEFAULT 0,
    alone_attempts   BIGINT NOT NULL DEFAULT 0,
    -- The gate of an update that may wait for it: `closed` or `open`. NULL: it passes no gate, or passed it with the request.
    gate             TEXT
);

CREATE INDEX updates_by_cause ON updates (cause_id, state);
CREATE INDEX updates_by_state ON updates (state, environment, repository, id);
CREATE INDEX updates_due ON updates (state, registry, next_attempt_at, id) WHERE finished_at IS NULL;
CREATE INDEX updates_by_end ON updates (state, finished_at, id) WHERE finished_at IS NOT NULL;
CREATE INDEX updates_landed ON updates (environment, repository, state, finished_at, id) WHERE finished_at IS NOT NULL;

-- Tries to move a branch.
CREATE TABLE push_attempts (
    id                TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    config_repository TEXT NOT NULL,
    branch            TEXT NOT NULL,
    -- The commit that the branch must be at.
    parent            TEXT NOT NULL,
    -- The last commit of the push.
    tip               TEXT NOT NULL,
    state             TEXT NOT NULL,
    created_at        BIGINT NOT NULL,
    ended_at          BIGINT
);

CREATE INDEX push_attempts_by_state ON push_attempts (state, id);

-- What an open push attempt carries. Deleted when the attempt ends.
CREATE TABLE push_attempt_updates (
    push_id           TEXT COLLATE "C" NOT NULL,
    update_id         TEXT COLLATE "C" NOT NULL,
    commit_id         TEXT NOT NULL,
    old_tag           TEXT,
    old_digest        TEXT,
    changes           TEXT,
    decided_by        TEXT,
    decided_because   TEXT,
    PRIMARY KEY (push_id, update_id)
);

CREATE INDEX push_attempt_updates_by_update ON push_attempt_updates (update_id);

-- Holds and freezes.
CREATE TABLE blocks (
    id               TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    kind             TEXT NOT NULL,
    environment      TEXT NOT NULL,
    -- NULL: every repository of the environment.
    repository       TEXT,
    reason           TEXT,
    actor            TEXT NOT NULL,
    -- The rollback that made it.
    request_id       TEXT COLLATE "C",
    created_at       BIGINT NOT NULL,
    -- When it ends by itself; NULL: never.
    expires_at       BIGINT,
    ended_at         BIGINT,
    ended_by         TEXT
);

CREATE INDEX blocks_active ON blocks (environment, id) WHERE ended_at IS NULL;
CREATE INDEX blocks_by_request ON blocks (request_id) WHERE request_id IS NOT NULL;

-- Why updates wait. The row of a cause that has ended stays until the update ends: it counts the failures of a rejected push.
CREATE TABLE waits (
    update_id        TEXT COLLATE "C" NOT NULL,
    cause            TEXT NOT NULL,
    detail           TEXT,
    since            BIGINT NOT NULL,
    -- When the cause ends by itself, or is looked at again; NULL: it has no time.
    until            BIGINT,
    failures         BIGINT NOT NULL DEFAULT 0,
    -- 0: the cause has ended.
    active           BIGINT NOT NULL,
    PRIMARY KEY (update_id, cause)
);

CREATE INDEX waits_active ON waits (active, cause, until);

-- Failed tries of events and requests; the newest 50 of each are kept.
CREATE TABLE failures (
    id               BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    cause_id         TEXT COLLATE "C" NOT NULL,
    -- NULL: it is about the event itself.
    environment      TEXT,
    at               BIGINT NOT NULL,
    asked            TEXT NOT NULL,
    answered         TEXT NOT NULL
);

CREATE INDEX failures_by_cause ON failures (cause_id, id);

-- Every change of state, in order. Written in the transaction of the change.
CREATE TABLE outbox (
    -- The number of the last entry of the row. The entries of a transaction share rows: an event writes five, and a burst has
    -- thousands.
    sequence         BIGINT PRIMARY KEY NOT NULL,
    first_sequence   BIGINT NOT NULL,
    at               BIGINT NOT NULL,
    -- The changes as a JSON list.
    changes          TEXT NOT NULL
);

-- One row. `fence` counts up with each block that is made or ends and each request: a push that was decided before is decided
-- again.
CREATE TABLE turn (
    id               BIGINT PRIMARY KEY NOT NULL,
    fence            BIGINT NOT NULL
);

INSERT INTO turn (id, fence) VALUES (1, 0);

-- The rollouts of committed updates.
CREATE TABLE follow_ups (
    update_id        TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    environment      TEXT NOT NULL,
    commit_id        TEXT NOT NULL,
    state            TEXT NOT NULL,
    reason           TEXT,
    started_at       BIGINT NOT NULL,
    ended_at         BIGINT,
    -- The applications that the update touches, with the progress of each: JSON.
    applications     TEXT NOT NULL DEFAULT '[]'
);

CREATE INDEX follow_ups_open ON follow_ups (update_id) WHERE ended_at IS NULL;
CREATE INDEX follow_ups_open_in ON follow_ups (environment, update_id) WHERE ended_at IS NULL;
CREATE INDEX follow_ups_by_state ON follow_ups (environment, state, update_id);

-- The health of the applications of each environment, and since when they have been healthy without a break.
CREATE TABLE application_health (
    environment      TEXT NOT NULL,
    application      TEXT NOT NULL,
    sync             TEXT NOT NULL,
    health           TEXT NOT NULL,
    message          TEXT,
    healthy_since    BIGINT,
    observed_at      BIGINT NOT NULL,
    -- A digest of what the manifests of the application name: if it changes, the time of being healthy begins again.
    named            TEXT,
    PRIMARY KEY (environment, application)
);

-- The versions that applications run, and since when. The rows of an application are replaced with each observation.
CREATE TABLE version_runs (
    environment      TEXT NOT NULL,
    application      TEXT NOT NULL,
    repository       TEXT NOT NULL,
    -- The tag, the digest or both, as its pods have it.
    version          TEXT NOT NULL,
    first_seen_at    BIGINT NOT NULL,
    -- Since when the application has been healthy with it; NULL: it is not.
    healthy_since    BIGINT,
    observed_at      BIGINT NOT NULL,
    PRIMARY KEY (environment, application, repository, version)
);

-- When images were built, in nanoseconds since the Unix epoch. For good: a digest names its content.
CREATE TABLE build_times (
    repository       TEXT NOT NULL,
    digest           TEXT NOT NULL,
    -- NULL: the image says nothing plausible.
    built_at         BIGINT,
    PRIMARY KEY (repository, digest)
);

-- The last request of each receiver.
CREATE TABLE receivers (
    name             TEXT PRIMARY KEY NOT NULL,
    heard_at         BIGINT NOT NULL,
    outcome          TEXT NOT NULL,
    -- When a request last held an event that was stored.
    accepted_at      BIGINT
);

-- The tags in the last list of each repository.
CREATE TABLE catch_up (
    repository       TEXT PRIMARY KEY NOT NULL,
    listed_at        BIGINT NOT NULL,
    -- Eight bytes of the SHA-256 of each tag, sorted: 8 kB for 1,000 tags.
    seen             BYTEA NOT NULL,
    -- If one tag is followed by its digest: the last one.
    digest           TEXT
);
