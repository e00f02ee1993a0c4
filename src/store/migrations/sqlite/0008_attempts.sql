-- What was tried in vain for an event or a request, and that it was run again. Written by triggers, so that no way of
-- failing is forgotten; the newest 50 of each are kept.
CREATE TABLE attempts (
    id               INTEGER PRIMARY KEY,
    -- The event or the request.
    cause_id         TEXT NOT NULL,
    -- NULL: it is about the event itself.
    environment      TEXT,
    at               INTEGER NOT NULL,
    -- `registry`, `rules`, `branch`, `replay`
    asked            TEXT NOT NULL,
    answered         TEXT NOT NULL
) STRICT;

CREATE INDEX attempts_by_cause ON attempts (cause_id, id);

CREATE TRIGGER attempts_bounded AFTER INSERT ON attempts BEGIN
    DELETE FROM attempts WHERE cause_id = new.cause_id AND id <= (
        SELECT id FROM attempts WHERE cause_id = new.cause_id ORDER BY id DESC LIMIT 1 OFFSET 50);
END;

CREATE TRIGGER attempts_event_postponed AFTER UPDATE OF attempts ON events WHEN new.attempts > old.attempts BEGIN
    INSERT INTO attempts (cause_id, at, asked, answered)
    VALUES (new.id, CAST(unixepoch('subsec') * 1000 AS INTEGER), 'registry', coalesce(new.reason, ''));
END;

-- Once an event is confirmed its updates tell what becomes of it.
CREATE TRIGGER attempts_event_refused AFTER UPDATE OF state ON events
WHEN new.state = 'refused' AND old.state = 'queued' AND NOT EXISTS (
    SELECT 1 FROM updates WHERE cause_id = new.id AND state = 'refused') BEGIN
    INSERT INTO attempts (cause_id, at, asked, answered)
    VALUES (new.id, CAST(unixepoch('subsec') * 1000 AS INTEGER), 'rules', 'refused: ' || coalesce(new.reason, ''));
END;

CREATE TRIGGER attempts_event_replayed AFTER UPDATE OF state ON events
WHEN new.state = 'queued' AND old.finished_at IS NOT NULL BEGIN
    INSERT INTO attempts (cause_id, at, asked, answered)
    VALUES (new.id, CAST(unixepoch('subsec') * 1000 AS INTEGER), 'replay', 'queued again');
END;

CREATE TRIGGER attempts_update_postponed AFTER UPDATE OF attempts ON updates WHEN new.attempts > old.attempts BEGIN
    INSERT INTO attempts (cause_id, environment, at, asked, answered)
    VALUES (new.cause_id, new.environment, CAST(unixepoch('subsec') * 1000 AS INTEGER),
        CASE old.state WHEN 'unverified' THEN 'registry' ELSE 'branch' END, coalesce(new.reason, ''));
END;

CREATE TRIGGER attempts_update_refused AFTER UPDATE OF state ON updates
WHEN new.state = 'refused' AND old.state <> 'refused' BEGIN
    INSERT INTO attempts (cause_id, environment, at, asked, answered)
    VALUES (new.cause_id, new.environment, CAST(unixepoch('subsec') * 1000 AS INTEGER),
        CASE old.state WHEN 'unverified' THEN 'registry' ELSE 'branch' END, 'refused: ' || coalesce(new.reason, ''));
END;

CREATE TRIGGER attempts_update_refused_at_once AFTER INSERT ON updates WHEN new.state = 'refused' BEGIN
    INSERT INTO attempts (cause_id, environment, at, asked, answered)
    VALUES (new.cause_id, new.environment, CAST(unixepoch('subsec') * 1000 AS INTEGER), 'rules',
        'refused: ' || coalesce(new.reason, ''));
END;

-- What has failed for good, also where another environment took it.
CREATE INDEX updates_refused ON updates (cause_id) WHERE state = 'refused';
