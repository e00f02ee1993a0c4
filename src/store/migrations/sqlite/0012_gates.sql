-- The versions that applications run, and since when. The rows of an application are replaced with each observation.
CREATE TABLE version_runs (
    environment      TEXT NOT NULL,
    application      TEXT NOT NULL,
    repository       TEXT NOT NULL,
    -- The tag, the digest or both, as its pods have it.
    version          TEXT NOT NULL,
    first_seen_at    INTEGER NOT NULL,
    -- Since when the application has been healthy with it; NULL: it is not.
    healthy_since    INTEGER,
    observed_at      INTEGER NOT NULL,
    PRIMARY KEY (environment, application, repository, version)
) STRICT;
