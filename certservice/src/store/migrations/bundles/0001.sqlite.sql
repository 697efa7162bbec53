CREATE TABLE pair (
    id   INTEGER NOT NULL PRIMARY KEY,
    pair TEXT    NOT NULL,
    seen INTEGER NOT NULL
) STRICT;

INSERT INTO pair (id, pair, seen) VALUES (1, '', 0);

CREATE TABLE key_sets (
    id   INTEGER NOT NULL PRIMARY KEY,
    kids TEXT    NOT NULL
) STRICT;

CREATE TABLE bundles (
    domain       TEXT    NOT NULL,
    revision     INTEGER NOT NULL,
    certificates TEXT    NOT NULL,
    body         TEXT    NOT NULL,
    sealed_to    INTEGER NOT NULL,
    key_set      INTEGER,
    since        INTEGER NOT NULL,
    PRIMARY KEY (domain, revision, certificates)
) STRICT;

CREATE INDEX bundles_by_key_set ON bundles (key_set, domain);

CREATE TABLE sealed_keys (
    id     TEXT    NOT NULL PRIMARY KEY,
    domain TEXT    NOT NULL,
    body   TEXT    NOT NULL,
    since  INTEGER NOT NULL
) STRICT;

CREATE INDEX sealed_keys_by_time ON sealed_keys (since)
