CREATE TABLE journal (
    seq        INTEGER NOT NULL PRIMARY KEY,
    written_at INTEGER NOT NULL,
    actor      TEXT    NOT NULL,
    action     TEXT    NOT NULL,
    tenant     TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    detail     TEXT    NOT NULL,
    hash       TEXT    NOT NULL
) STRICT;

CREATE INDEX journal_by_tenant ON journal (tenant, seq);

CREATE TABLE journal_head (
    id   INTEGER NOT NULL PRIMARY KEY,
    seq  INTEGER NOT NULL,
    hash TEXT    NOT NULL
) STRICT;

INSERT INTO journal_head (id, seq, hash) VALUES (1, 0, '');

ALTER TABLE lists ADD COLUMN actor TEXT NOT NULL DEFAULT '';

ALTER TABLE jobs ADD COLUMN created_at INTEGER NOT NULL DEFAULT 0;

UPDATE jobs SET created_at = JSON_EXTRACT(body, '$.created_at');

CREATE INDEX jobs_by_age ON jobs (lane, created_at)
