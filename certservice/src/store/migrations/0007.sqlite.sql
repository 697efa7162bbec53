ALTER TABLE domains ADD COLUMN registered TEXT NOT NULL DEFAULT '';

ALTER TABLE domains ADD COLUMN list_id TEXT;

CREATE INDEX domains_by_registered ON domains (registered);

CREATE INDEX domains_by_list ON domains (list_id, state, code);

CREATE TABLE lists (
    id         TEXT    NOT NULL PRIMARY KEY,
    own_tenant TEXT    NOT NULL,
    idem_key   TEXT    UNIQUE,
    format     TEXT    NOT NULL,
    others     TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    arrived    INTEGER NOT NULL,
    line_count INTEGER NOT NULL,
    done       INTEGER NOT NULL,
    registered INTEGER NOT NULL,
    known      INTEGER NOT NULL,
    refused    INTEGER NOT NULL
) STRICT;

CREATE TABLE list_parts (
    list_id    TEXT    NOT NULL REFERENCES lists (id) ON DELETE CASCADE,
    first_line INTEGER NOT NULL,
    body       TEXT    NOT NULL,
    PRIMARY KEY (list_id, first_line)
) STRICT;

CREATE TABLE list_errors (
    list_id TEXT    NOT NULL REFERENCES lists (id) ON DELETE CASCADE,
    line    INTEGER NOT NULL,
    name    TEXT    NOT NULL,
    code    TEXT    NOT NULL,
    says    TEXT    NOT NULL,
    PRIMARY KEY (list_id, line, name)
) STRICT
