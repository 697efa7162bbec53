CREATE TABLE edge_keys (
    kid        TEXT    NOT NULL PRIMARY KEY,
    pool       TEXT    NOT NULL,
    public_key TEXT    NOT NULL,
    added_at   INTEGER NOT NULL,
    retired_at INTEGER,
    mac        TEXT    NOT NULL
) STRICT;

CREATE TABLE key_sets (
    id   INTEGER NOT NULL PRIMARY KEY,
    kids TEXT    NOT NULL
) STRICT;

ALTER TABLE bundles ADD COLUMN key_set INTEGER NOT NULL DEFAULT 0;

CREATE INDEX bundles_by_key_set ON bundles (key_set, domain)
