-- What an environment's health is asked for: what is still being rolled out in it, and what ran out of time.
CREATE INDEX follow_ups_open_in ON follow_ups (environment, update_id) WHERE ended_at IS NULL;
CREATE INDEX follow_ups_timed_out ON follow_ups (environment, update_id) WHERE state = 'timed_out';

-- Who was asked in vain, where it is not whom everybody asks at that state.
ALTER TABLE events ADD COLUMN asked TEXT;
ALTER TABLE updates ADD COLUMN asked TEXT;

DROP TRIGGER attempts_event_postponed;
CREATE TRIGGER attempts_event_postponed AFTER UPDATE OF attempts ON events WHEN new.attempts > old.attempts BEGIN
    INSERT INTO attempts (cause_id, at, asked, answered)
    VALUES (new.id, CAST(unixepoch('subsec') * 1000 AS INTEGER), coalesce(new.asked, 'registry'),
        coalesce(new.reason, ''));
END;

DROP TRIGGER attempts_event_refused;
CREATE TRIGGER attempts_event_refused AFTER UPDATE OF state ON events
WHEN new.state = 'refused' AND old.state = 'queued' AND NOT EXISTS (
    SELECT 1 FROM updates WHERE cause_id = new.id AND state = 'refused') BEGIN
    INSERT INTO attempts (cause_id, at, asked, answered)
    VALUES (new.id, CAST(unixepoch('subsec') * 1000 AS INTEGER), coalesce(new.asked, 'rules'),
        'refused: ' || coalesce(new.reason, ''));
END;

DROP TRIGGER attempts_update_refused;
CREATE TRIGGER attempts_update_refused AFTER UPDATE OF state ON updates
WHEN new.state = 'refused' AND old.state <> 'refused' BEGIN
    INSERT INTO attempts (cause_id, environment, at, asked, answered)
    VALUES (new.cause_id, new.environment, CAST(unixepoch('subsec') * 1000 AS INTEGER),
        coalesce(new.asked, CASE old.state WHEN 'unverified' THEN 'registry' ELSE 'branch' END),
        'refused: ' || coalesce(new.reason, ''));
END;

-- What waits is asked for by its place, by whatever is written there.
DROP INDEX updates_waiting;
CREATE INDEX updates_waiting ON updates (environment, repository, id) WHERE state = 'waiting';
