-- The trace that a row belongs to, as the `traceparent` header writes it (https://www.w3.org/TR/trace-context/), so
-- that it goes on after a restart.
ALTER TABLE events ADD COLUMN trace_parent TEXT NOT NULL DEFAULT '';
ALTER TABLE requests ADD COLUMN trace_parent TEXT NOT NULL DEFAULT '';
ALTER TABLE updates ADD COLUMN trace_parent TEXT NOT NULL DEFAULT '';

-- When a hold or freeze let an update go. How long it waited before says nothing about us.
ALTER TABLE updates ADD COLUMN released_at INTEGER;

-- Rows from before get a trace of their own each. Its "parent" stands for the webhook or request that nobody traced.
UPDATE events SET trace_parent = '00-' || lower(hex(randomblob(16))) || '-' || lower(hex(randomblob(8))) || '-01';
UPDATE requests SET trace_parent = '00-' || lower(hex(randomblob(16))) || '-' || lower(hex(randomblob(8))) || '-01';
UPDATE updates SET trace_parent = coalesce(
    (SELECT trace_parent FROM events WHERE events.id = updates.cause_id),
    (SELECT trace_parent FROM requests WHERE requests.id = updates.cause_id),
    '00-' || lower(hex(randomblob(16))) || '-' || lower(hex(randomblob(8))) || '-01');
