CREATE TABLE changes (
    `cursor` INTEGER NOT NULL PRIMARY KEY,
    domain   TEXT    NOT NULL UNIQUE,
    revision INTEGER NOT NULL,
    gone     INTEGER NOT NULL
) STRICT;

INSERT INTO changes (`cursor`, domain, revision, gone)
    SELECT ROW_NUMBER() OVER (ORDER BY domain), domain, JSON_EXTRACT(body, '$.revision'), FALSE FROM bundles;

CREATE TABLE changes_head (
    id       INTEGER NOT NULL PRIMARY KEY,
    `cursor` INTEGER NOT NULL
) STRICT;

INSERT INTO changes_head (id, `cursor`) SELECT 1, COALESCE(MAX(`cursor`), 0) FROM changes
