-- What decided that a pushed version is newer than what runs: the criterion, and the comparison in words.
ALTER TABLE updates ADD COLUMN decided_by TEXT;
ALTER TABLE updates ADD COLUMN decided_because TEXT;
-- The versions it was found not to be older than, as JSON. Where something else runs, it is compared anew.
ALTER TABLE updates ADD COLUMN compared TEXT;

CREATE INDEX updates_newest_of_place ON updates (environment, repository, id);

-- When images were built, as they say themselves. For ever: a digest names its content.
CREATE TABLE build_times (
    repository       TEXT NOT NULL,
    digest           TEXT NOT NULL,
    -- NULL: the image says nothing that could be true.
    built_at         INTEGER,
    PRIMARY KEY (repository, digest)
) STRICT, WITHOUT ROWID;
