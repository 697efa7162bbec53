CREATE TABLE IF NOT EXISTS budgets (
    issuer  VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    name    VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    scope   VARCHAR(253) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    full_at BIGINT       NOT NULL,
    PRIMARY KEY (issuer, name, scope),
    INDEX budgets_by_time (full_at)
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS issuers (
    name         VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    closed_until BIGINT      NOT NULL,
    failures     BIGINT      NOT NULL,
    code         VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    says         TEXT        CHARACTER SET utf8mb4 NOT NULL
) ENGINE = InnoDB;

DELETE FROM issuers;

INSERT INTO issuers (name, closed_until, failures, code, says) SELECT DISTINCT issuer, 0, 0, '', '' FROM domains;

ALTER TABLE jobs ADD COLUMN issuer VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT '';

ALTER TABLE jobs ADD COLUMN stage INT NOT NULL DEFAULT 0;

ALTER TABLE jobs ADD COLUMN lane INT NOT NULL DEFAULT 2;

ALTER TABLE jobs ADD COLUMN place BIGINT NOT NULL DEFAULT 0;

ALTER TABLE jobs ADD COLUMN holder VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT '';

ALTER TABLE jobs ADD COLUMN held_until BIGINT NOT NULL DEFAULT 0;

UPDATE jobs SET place = due_at, issuer = (SELECT domains.issuer FROM domains WHERE domains.name = jobs.domain);

CREATE INDEX jobs_in_line ON jobs (issuer, stage, lane, place);

CREATE INDEX jobs_by_holder ON jobs (holder)
