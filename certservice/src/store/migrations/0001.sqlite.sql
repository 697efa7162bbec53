CREATE TABLE domains (
    name          TEXT    NOT NULL PRIMARY KEY,
    tenant        TEXT    NOT NULL,
    issuer        TEXT    NOT NULL,
    state         TEXT    NOT NULL,
    code          TEXT    NOT NULL,
    says          TEXT    NOT NULL,
    who           TEXT    NOT NULL,
    created_at    INTEGER NOT NULL,
    next_check_at INTEGER,
    certificate   TEXT,
    renew_at      INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX domains_by_tenant ON domains (tenant, name);

CREATE INDEX domains_by_renewal ON domains (renew_at);

CREATE TABLE bundles (
    domain TEXT NOT NULL PRIMARY KEY REFERENCES domains (name) ON DELETE CASCADE,
    body   TEXT NOT NULL
) STRICT;

CREATE TABLE jobs (
    domain  TEXT    NOT NULL PRIMARY KEY REFERENCES domains (name) ON DELETE CASCADE,
    version INTEGER NOT NULL,
    due_at  INTEGER NOT NULL,
    step    TEXT    NOT NULL,
    body    TEXT    NOT NULL
) STRICT;

CREATE INDEX jobs_by_time ON jobs (due_at);

CREATE TABLE challenges (
    domain            TEXT    NOT NULL REFERENCES domains (name) ON DELETE CASCADE,
    token             TEXT    NOT NULL,
    key_authorization TEXT    NOT NULL,
    expires_at        INTEGER NOT NULL,
    PRIMARY KEY (domain, token)
) STRICT, WITHOUT ROWID
