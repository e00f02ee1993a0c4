-- States, waits, push attempts, blocks and changes as data: no trigger and no index knows a state.

DROP TRIGGER attempts_bounded;
DROP TRIGGER attempts_event_postponed;
DROP TRIGGER attempts_event_refused;
DROP TRIGGER attempts_event_replayed;
DROP TRIGGER attempts_update_postponed;
DROP TRIGGER attempts_update_refused;
DROP TRIGGER attempts_update_refused_at_once;

-- Failed tries of events and requests; the newest 50 of each are kept.
ALTER TABLE attempts RENAME TO failures;
DROP INDEX attempts_by_cause;
CREATE INDEX failures_by_cause ON failures (cause_id, id);

DROP INDEX events_due;
DROP INDEX updates_by_place;
DROP INDEX updates_by_cause;
DROP INDEX updates_newest_of_place;
DROP INDEX updates_pending;
DROP INDEX updates_waiting;
DROP INDEX updates_due;
DROP INDEX updates_committed;
DROP INDEX updates_committed_by_place;
DROP INDEX updates_refused;
DROP INDEX follow_ups_timed_out;

ALTER TABLE events RENAME COLUMN attempts TO failures;
ALTER TABLE events DROP COLUMN asked;
ALTER TABLE updates RENAME COLUMN attempts TO failures;
ALTER TABLE updates DROP COLUMN asked;
-- 1: its event was replayed, and the update no longer counts among those of the event.
ALTER TABLE updates ADD COLUMN replayed INTEGER NOT NULL DEFAULT 0;
UPDATE updates SET replayed = 1 WHERE state = 'superseded' AND reason LIKE 'replayed; before: %';

CREATE INDEX events_due ON events (state, registry, next_attempt_at, id) WHERE finished_at IS NULL;
CREATE INDEX events_by_end ON events (state, id) WHERE finished_at IS NOT NULL;
CREATE INDEX events_announced ON events (verified_digest, repository, id) WHERE verified_digest IS NOT NULL;
CREATE INDEX updates_by_cause ON updates (cause_id, state);
CREATE INDEX updates_by_state ON updates (state, environment, repository, id);
CREATE INDEX updates_due ON updates (state, registry, next_attempt_at, id) WHERE finished_at IS NULL;
CREATE INDEX updates_by_end ON updates (state, finished_at, id) WHERE finished_at IS NOT NULL;
CREATE INDEX updates_landed ON updates (environment, repository, state, finished_at, id) WHERE finished_at IS NOT NULL;
CREATE INDEX follow_ups_by_state ON follow_ups (environment, state, update_id);

-- Tries to move a branch. `config_repository`, `branch` and `parent` are empty if 0.1.0 made the attempt: it did not keep them.
CREATE TABLE push_attempts (
    id                TEXT PRIMARY KEY NOT NULL,
    config_repository TEXT NOT NULL,
    branch            TEXT NOT NULL,
    -- The commit that the branch must be at.
    parent            TEXT NOT NULL,
    -- The last commit of the push.
    tip               TEXT NOT NULL,
    state             TEXT NOT NULL,
    created_at        INTEGER NOT NULL,
    ended_at          INTEGER
) STRICT;

CREATE INDEX push_attempts_by_state ON push_attempts (state, id);

-- What an open push attempt carries. Deleted when the attempt ends.
CREATE TABLE push_attempt_updates (
    push_id           TEXT NOT NULL,
    update_id         TEXT NOT NULL,
    commit_id         TEXT NOT NULL,
    old_tag           TEXT,
    old_digest        TEXT,
    changes           TEXT,
    decided_by        TEXT,
    decided_because   TEXT,
    PRIMARY KEY (push_id, update_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX push_attempt_updates_by_update ON push_attempt_updates (update_id);

-- The answer to these pushes is not known: one attempt for each environment and commit.
INSERT INTO push_attempts (id, config_repository, branch, parent, tip, state, created_at)
SELECT min(id), '', '', '', commit_id, 'open', max(received_at) FROM updates
WHERE state IN ('pending', 'waiting') AND commit_id IS NOT NULL AND (old_tag IS NOT NULL OR old_digest IS NOT NULL)
GROUP BY environment, commit_id;
INSERT INTO push_attempt_updates (push_id, update_id, commit_id, old_tag, old_digest, changes)
SELECT attempt.push_id, updates.id, updates.commit_id, updates.old_tag, updates.old_digest, updates.changes FROM (
    SELECT min(id) AS push_id, environment, commit_id FROM updates
    WHERE state IN ('pending', 'waiting') AND commit_id IS NOT NULL AND (old_tag IS NOT NULL OR old_digest IS NOT NULL)
    GROUP BY environment, commit_id
) AS attempt JOIN updates ON updates.environment = attempt.environment AND updates.commit_id = attempt.commit_id
WHERE updates.state IN ('pending', 'waiting') AND (updates.old_tag IS NOT NULL OR updates.old_digest IS NOT NULL);
UPDATE updates SET commit_id = NULL, old_tag = NULL, old_digest = NULL, changes = NULL
WHERE state <> 'committed' AND (commit_id IS NOT NULL OR old_tag IS NOT NULL OR old_digest IS NOT NULL OR changes IS NOT NULL);

-- Holds and freezes.
CREATE TABLE blocks (
    id               TEXT PRIMARY KEY NOT NULL,
    kind             TEXT NOT NULL,
    environment      TEXT NOT NULL,
    -- NULL: every repository of the environment.
    repository       TEXT,
    reason           TEXT,
    actor            TEXT NOT NULL,
    -- The rollback that made it.
    request_id       TEXT,
    created_at       INTEGER NOT NULL,
    -- When it ends by itself; NULL: never.
    expires_at       INTEGER,
    ended_at         INTEGER,
    ended_by         TEXT
) STRICT;

CREATE INDEX blocks_active ON blocks (environment, id) WHERE ended_at IS NULL;
CREATE INDEX blocks_by_request ON blocks (request_id) WHERE request_id IS NOT NULL;

INSERT INTO blocks (id, kind, environment, repository, reason, actor, request_id, created_at, expires_at, ended_at, ended_by)
SELECT id, 'hold', environment, repository, reason, actor, request_id, created_at, expires_at, released_at, released_by
FROM holds;
INSERT INTO blocks (id, kind, environment, reason, actor, created_at, expires_at, ended_at, ended_by)
SELECT id, 'freeze', environment, reason, actor, created_at, expires_at, ended_at, ended_by FROM freezes;
DROP TABLE holds;
DROP TABLE freezes;

-- Why updates wait. The row of a cause that has ended stays until the update ends: it counts the failures of a rejected push.
CREATE TABLE waits (
    update_id        TEXT NOT NULL,
    cause            TEXT NOT NULL,
    detail           TEXT,
    since            INTEGER NOT NULL,
    -- When the cause ends by itself, or is looked at again; NULL: it has no time.
    until            INTEGER,
    failures         INTEGER NOT NULL DEFAULT 0,
    -- 0: the cause has ended.
    active           INTEGER NOT NULL,
    PRIMARY KEY (update_id, cause)
) STRICT;

CREATE INDEX waits_active ON waits (active, cause, until);

-- An update that waits for a hold and a freeze gets the other cause with the first look at it.
INSERT INTO waits (update_id, cause, since, active)
SELECT id, CASE WHEN cause IN ('push', 'catch-up') AND EXISTS (
    SELECT 1 FROM blocks WHERE blocks.kind = 'hold' AND blocks.environment = updates.environment
        AND blocks.repository = updates.repository AND blocks.ended_at IS NULL) THEN 'hold' ELSE 'freeze' END,
    received_at, 1
FROM updates WHERE state = 'waiting';
UPDATE updates SET reason = NULL WHERE state = 'waiting';
UPDATE events SET reason = NULL WHERE state = 'waiting';

-- Every change of state, in order. Written in the transaction of the change.
CREATE TABLE outbox (
    -- The number of the last entry of the row. The entries of a transaction share rows: an event writes five, and a burst has
    -- thousands.
    sequence         INTEGER PRIMARY KEY NOT NULL,
    first_sequence   INTEGER NOT NULL,
    at               INTEGER NOT NULL,
    -- The changes as a JSON list.
    changes          TEXT NOT NULL
) STRICT;

-- One row. `fence` counts up with each block that is made or ends and each request: a push that was decided before is decided
-- again.
CREATE TABLE turn (
    id               INTEGER PRIMARY KEY NOT NULL,
    fence            INTEGER NOT NULL
) STRICT;

INSERT INTO turn (id, fence) VALUES (1, 0);
