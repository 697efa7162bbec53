CREATE TABLE budgets (
    issuer  TEXT    NOT NULL,
    name    TEXT    NOT NULL,
    scope   TEXT    NOT NULL,
    full_at INTEGER NOT NULL,
    PRIMARY KEY (issuer, name, scope)
) STRICT, WITHOUT ROWID;

CREATE INDEX budgets_by_time ON budgets (full_at);

CREATE TABLE issuers (
    name         TEXT    NOT NULL PRIMARY KEY,
    closed_until INTEGER NOT NULL,
    failures     INTEGER NOT NULL,
    code         TEXT    NOT NULL,
    says         TEXT    NOT NULL
) STRICT;

INSERT INTO issuers (name, closed_until, failures, code, says) SELECT DISTINCT issuer, 0, 0, '', '' FROM domains;

ALTER TABLE jobs ADD COLUMN issuer TEXT NOT NULL DEFAULT '';

ALTER TABLE jobs ADD COLUMN stage INTEGER NOT NULL DEFAULT 0;

ALTER TABLE jobs ADD COLUMN lane INTEGER NOT NULL DEFAULT 2;

ALTER TABLE jobs ADD COLUMN place INTEGER NOT NULL DEFAULT 0;

ALTER TABLE jobs ADD COLUMN holder TEXT NOT NULL DEFAULT '';

ALTER TABLE jobs ADD COLUMN held_until INTEGER NOT NULL DEFAULT 0;

UPDATE jobs SET place = due_at, issuer = (SELECT domains.issuer FROM domains WHERE domains.name = jobs.domain);

CREATE INDEX jobs_in_line ON jobs (issuer, stage, lane, place);

CREATE INDEX jobs_by_holder ON jobs (holder)
